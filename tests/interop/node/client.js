// Client of a gpt2flow server, with grpc-js and the .proto files alone.
//
//   node client.js ADDRESS ACTION PROTO_FOLDER...
//
// ACTION is `stream`, `invalid` or `cancel`. The result is one JSON object on stdout.

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const [address, action, ...includeDirs] = process.argv.slice(2);
const definitions = protoLoader.loadSync(
  ['gpt2flow/inference/v1/inference.proto', 'google/rpc/status.proto', 'google/rpc/error_details.proto'],
  { includeDirs, enums: String, longs: String, defaults: true, oneofs: true },
);
const { gpt2flow } = grpc.loadPackageDefinition(definitions);
const client = new gpt2flow.inference.v1.InferenceService(address, grpc.credentials.createInsecure());

const prompt = { text: '<|state|>guest<|user|>two umbrellas please<|act|>' };
const inAMinute = () => ({ deadline: Date.now() + 60_000 });

function start(options) {
  return client.generateStream({ prompt, options }, inAMinute());
}

async function stream() {
  const options = { sampling: { temperature: 0 }, stopping: { maxNewTokens: 24 }, output: { tokenIds: true } };
  const texts = [];
  let end = null;
  for await (const message of start(options)) {
    if (message.event === 'delta') texts.push(message.delta.text);
    else end = message.end;
  }
  return { texts, end };
}

async function invalid() {
  try {
    for await (const _ of start({ sampling: { temperature: -1, topP: 2 } }));
  } catch (error) {
    const [bytes] = error.metadata.get('grpc-status-details-bin');
    const status = definitions['google.rpc.Status'].deserialize(bytes);
    const violations = status.details.flatMap(({ value, type_url, typeUrl }) => {
      const type = (typeUrl ?? type_url).split('/').pop();
      return definitions[type].deserialize(value).fieldViolations;
    });
    return { code: grpc.status[error.code], fields: violations.map(({ field }) => field) };
  }
  throw new Error('the server accepted invalid options');
}

async function cancel() {
  const call = start({ stopping: { maxNewTokens: 400, ignoreEos: true } });
  let deltas = 0;
  try {
    for await (const _ of call) {
      deltas += 1;
      call.cancel();
    }
  } catch (error) {
    return { code: grpc.status[error.code], deltas };
  }
  throw new Error('the stream ended before it was cancelled');
}

try {
  console.log(JSON.stringify(await { stream, invalid, cancel }[action]()));
} finally {
  client.close();
}
