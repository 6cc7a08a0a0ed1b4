// Charts of the live figures; a counter becomes a rate between two answers.
"use strict";

(() => {
  const KEPT = 300;
  const SECONDS = 2;
  const SHOWN_SECONDS = 600;
  const charts = {};
  const times = [];
  let before = null;

  function rates(now, seconds) {
    const change = (name) => (before ? now[name] - before[name] : 0);
    const ratio = (above, below) => (change(below) > 0 ? change(above) / change(below) : null);
    return {
      requests: [now.running, now.waiting],
      tokens_per_second: [before ? change("completion_tokens") / seconds : null],
      latency: [
        thousand(ratio("first_token_seconds", "first_tokens")),
        thousand(ratio("per_token_seconds", "per_tokens")),
      ],
      cache_share: [hundred(ratio("cached_tokens", "prompt_tokens"))],
    };
  }
  const thousand = (value) => (value === null ? null : 1000 * value);
  const hundred = (value) => (value === null ? null : 100 * value);

  function add(key, values) {
    const place = document.querySelector(`[data-chart="${key}"]`);
    const names = place.dataset.series.split("|");
    charts[key] ??= { data: names.map(() => []), plot: null };
    const chart = charts[key];
    values.forEach((value, index) => {
      chart.data[index].push(value);
      chart.data[index].splice(0, chart.data[index].length - KEPT);
    });
    const data = [times, ...chart.data];
    if (chart.plot === null) {
      chart.plot = new uPlot(options(place, names), data, place);
    } else {
      chart.plot.setData(data);
    }
    const shown = values.map((value, index) => `${names[index]}: ${text(value)}`);
    document.querySelector(`[data-latest="${key}"]`).textContent = shown.join(" · ");
  }
  const text = (value) => (value === null ? "–" : value.toFixed(value < 10 ? 1 : 0));

  function options(place, names) {
    const style = getComputedStyle(document.documentElement);
    const colours = ["--accent", "--warn"].map((name) => style.getPropertyValue(name).trim());
    const axis = { stroke: style.getPropertyValue("--soft").trim(), grid: { stroke: style.getPropertyValue("--line").trim() } };
    return {
      width: place.clientWidth,
      height: 180,
      legend: { show: false },
      scales: {
        x: { range: (_, first, last) => [last - SHOWN_SECONDS, last] },
        y: { range: (_, low, high) => [0, Math.max(high || 0, 1)] },
      },
      axes: [axis, axis],
      series: [{}, ...names.map((label, index) => ({ label, stroke: colours[index], width: 2, spanGaps: true }))],
    };
  }

  async function ask() {
    const error = document.getElementById("live-error");
    try {
      const response = await fetch("/live.json");
      const now = await response.json();
      if (!response.ok) { throw new Error(now.error); }
      const at = Date.now() / 1000;
      const seconds = times.length ? at - times[times.length - 1] : SECONDS;
      times.push(at);
      times.splice(0, times.length - KEPT);
      for (const [key, values] of Object.entries(rates(now, seconds))) { add(key, values); }
      before = now;
      error.hidden = true;
    } catch (problem) {
      error.textContent = problem.message;
      error.hidden = false;
    }
    setTimeout(ask, 1000 * SECONDS);
  }
  document.addEventListener("DOMContentLoaded", ask);
})();
