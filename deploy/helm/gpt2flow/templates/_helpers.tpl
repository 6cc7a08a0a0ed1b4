{{/* Name of a part of a release, such as `shop-server`; call it with (list . "server"). */}}
{{- define "gpt2flow.name" -}}
{{- $root := index . 0 -}}
{{- printf "%s-%s" ($root.Release.Name | trunc 40 | trimSuffix "-") (index . 1) -}}
{{- end -}}

{{/* Labels by which a part is selected; they never change. */}}
{{- define "gpt2flow.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: gpt2flow-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{/* Metadata of an object of a part; call it with (list . "server" "server-metrics") for another name. */}}
{{- define "gpt2flow.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "gpt2flow.name" (list $root (last .)) }}
labels:
  {{- include "gpt2flow.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: gpt2flow
  app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ $root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Image of a part, by default of the chart's version. */}}
{{- define "gpt2flow.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end -}}

{{/* Security of a container that writes to its volumes only. */}}
{{- define "gpt2flow.locked" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{/* Security of a pod; call it with the number of its user. */}}
{{- define "gpt2flow.unprivileged" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  # The group of the volumes that the pod writes to.
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{/* Probe of the server, whose health is that of its models. */}}
{{- define "gpt2flow.probe" -}}
{{- if .Values.server.tls.secret -}}
# The probes of Kubernetes itself speak plain text only.
exec:
  command: [gpt2flow, health, --address=localhost:50051, --tls-ca=/tls/ca.crt]
{{- else -}}
grpc: { port: 50051 }
{{- end -}}
{{- end -}}

{{/* Environment of a container, from a map. */}}
{{- define "gpt2flow.env" -}}
{{- range $name, $value := . }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end -}}

{{/* Preference for nodes without another replica of the part. */}}
{{- define "gpt2flow.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "gpt2flow.selector" . | nindent 8 }}
{{- end -}}

{{/* Peers of a network policy: pods of any namespace with these labels. */}}
{{- define "gpt2flow.pods" -}}
- namespaceSelector: {}
  podSelector:
    matchLabels:
      {{- toYaml . | nindent 6 }}
{{- end -}}

{{/* Peers of a network policy: all pods of one namespace. */}}
{{- define "gpt2flow.namespace" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . }}
{{- end -}}

{{/* Secret with the address of the agent's database. */}}
{{- define "gpt2flow.database" -}}
{{- if .Values.postgresql.enabled -}}
{{- include "gpt2flow.name" (list . "postgresql") -}}
{{- else -}}
{{- .Values.agent.databaseSecret -}}
{{- end -}}
{{- end -}}

{{/* Probe of PostgreSQL. */}}
{{- define "gpt2flow.ping" -}}
exec:
  command: [pg_isready, --username=gpt2flow, --dbname=gpt2flow, --quiet]
{{- end -}}
