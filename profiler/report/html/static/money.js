// The money columns of a report's rows, computed again at what a reader enters.  Pure: no page, no state.
// The other half and the meaning of each field: profiler/comparison/money.py; the formulas: docs/cost.md.
(() => {
  "use strict";
  const SECONDS = 3600, J_PER_KWH = 3.6e6, M = 1e6, FINITE = 700;
  const [VALUE, LOW, HIGH] = [0, 1, 2]; // an estimate is [value, low, high], ends null where nothing bounds

  const scaled = (of, factor) => of && of.map((end) => (end === null ? null : end * factor));

  // Sum of factor * x of times on one machine: profiler.cost.kinds.combined.
  function combined(parts) {
    const value = parts.reduce((sum, [factor, of]) => sum + factor * of[VALUE], 0);
    const down = [0, 0], up = [0, 0];
    for (const [factor, of] of parts) {
      if (of[LOW] === null || of[HIGH] === null) return [value, null, null];
      const below = Math.abs(factor) * (of[VALUE] - of[LOW]);
      const above = Math.abs(factor) * (of[HIGH] - of[VALUE]);
      const sign = factor < 0 ? 1 : 0;
      down[sign] += sign ? above : below;
      up[sign] += sign ? below : above;
    }
    return [value, Math.max(0, value - Math.hypot(...down)), value + Math.hypot(...up)];
  }

  function put(row, name, of) {
    if (of) [row[name], row[`${name}_low`], row[`${name}_high`]] = of;
  }

  // ------------------------------------------------------------------------------------- what is entered

  const isNumber = (x) => typeof x === "number" && Number.isFinite(x);

  // What is wrong with what was entered, in one line; null where nothing is.
  function problem(money, inputs) {
    const on = { ...money.stated, ...inputs };
    const sum = on.blend.reduce((all, share) => all + share, 0);
    if (on.price !== null && !(isNumber(on.price) && on.price > 0)) return "price: a number above 0";
    if (!(on.utilization > 0 && on.utilization <= 1)) return "utilisation: above 0 and at most 1";
    if (on.pue !== null && !(isNumber(on.pue) && on.pue >= 1)) return "PUE: a number from 1 on";
    if (!(isNumber(on.tariff_usd_per_kwh) && on.tariff_usd_per_kwh > 0)) return "electricity: a number above 0";
    if (!on.blend.every((share) => share >= 0) || !(Math.abs(sum - 1) < 1e-6)) return "blend: shares from 0 to 1";
    return null;
  }

  // ------------------------------------------------------------------------------------------- one row

  // USD an hour of the whole engine: at work, while it waits, and paid for an hour of work.
  function hourly(hour, on, pue) {
    const isEntered = on.price !== null && on.price !== hour.price && hour.per_price !== null;
    const standing = isEntered ? on.price * hour.per_price : hour.stated_usd;
    if (standing === null) return null;
    const perKw = pue * on.tariff_usd_per_kwh;
    const paid = (fixed) => {
      const waiting = standing + hour.idle_kw * perKw + (fixed - standing);
      return fixed + hour.work_kw * perKw + waiting * (1 / on.share - 1);
    };
    const effective = paid(standing);
    if (!(effective >= on.least_usd_per_hour && effective <= on.most_usd_per_hour)) return null;
    const work = standing + hour.work_kw * perKw;
    const price = hour.per_price === null ? work / hour.engine : isEntered ? on.price : hour.price;
    const ends = isEntered || !hour.ends || hour.ends[0] === hour.ends[1] ? [] : hour.ends;
    return { effective, price, ends: ends.map((end) => paid(end) / effective) };
  }

  function metered(row, item, on, pue) {
    if (!item.metered) return;
    const { working_j: working, waiting_j: waiting } = item.metered;
    const waits = 1 / on.share - 1;
    const all = waits > 0 && waiting ? combined([[1, working], [waits, waiting]]) : working;
    const kwh = scaled(all, (pue * M) / J_PER_KWH);
    put(row, "electricity_usd_per_m_output_tokens", scaled(kwh, on.tariff_usd_per_kwh));
    if (on.g_per_kwh !== null) put(row, "gco2e_per_m_output_tokens", scaled(kwh, on.g_per_kwh));
  }

  function blended(item, blend) {
    const [input, output, cached] = blend;
    if (item.input_per_output === null || cached > 0) return null;
    return combined([[output, item.whole_s], [input - output * item.input_per_output, item.input_s]]);
  }

  function byTheHour(row, item, on, pue) {
    const hour = item.hour && hourly(item.hour, on, pue);
    if (!hour) return;
    row.price_usd_per_hour = hour.price;
    if (!item.whole_s) return;
    const usdPerS = hour.effective / SECONDS;
    const electricity = ["", "_low", "_high"].map((end) => row[`electricity_usd_per_m_output_tokens${end}`]);
    const bill = on.basis === "electricity" ? electricity : scaled(item.whole_s, usdPerS);
    put(row, "usd_per_m_output_tokens", bill);
    put(row, "usd_per_m_input_tokens", scaled(item.input_s, usdPerS));
    put(row, "usd_per_m_output_tokens_apart", scaled(item.apart_s, usdPerS));
    put(row, "usd_per_m_blended_tokens", scaled(blended(item, on.blend), usdPerS));
    put(row, "usd_per_request", scaled(item.request_s, usdPerS));
    const [low, high] = hour.ends;
    if (low !== undefined) row.usd_per_m_output_tokens_cheapest = bill[VALUE] * low;
    if (high !== undefined) row.usd_per_m_output_tokens_dearest = bill[VALUE] * high;
  }

  function byTheToken(row, item, on) {
    if (!item.listed) return;
    const asks = (offer) => offer[0] * on.blend[0] + offer[1] * on.blend[1];
    const offers = [...item.listed.offers].sort((a, b) => asks(a) - asks(b));
    const middle = offers[Math.floor(offers.length / 2)];
    row.usd_per_m_input_tokens = middle[0];
    row.usd_per_m_output_tokens_apart = middle[1];
    row.usd_per_m_blended_tokens = on.blend.reduce((sum, share, at) => sum + share * middle[at], 0);
    Object.assign(row, item.listed.bill);
  }

  function compute(money, item, on) {
    const row = Object.fromEntries(money.columns.map((name) => [name, null]));
    const said = on.pue === null ? item.pue : on.pue;
    const pue = said || 1;
    metered(row, item, on, pue);
    if (on.basis === "api") {
      byTheToken(row, item, on);
    } else {
      row.utilization_frac = on.share;
      byTheHour(row, item, on, pue);
    }
    put(row, "energy_facility_j_per_output_token", on.pue !== null && item.host_j ? scaled(item.host_j, on.pue) : item.facility_j);
    row.pue = item.has_energy ? said : item.pue;
    return row;
  }

  // ------------------------------------------------------------------------------- over the baseline

  // Geometric mean with a t interval on logarithms: profiler.stats.over_repeats.
  function overRepeats(values, t) {
    const n = values.length, mean = (some) => some.reduce((sum, x) => sum + x, 0) / n;
    if (Math.min(...values) <= 0) return [mean(values), null, null];
    const logs = values.map(Math.log), middle = mean(logs);
    const part = logs.reduce((sum, x) => sum + (x - middle) ** 2, 0) / (n - 1) / n;
    const finite = (x) => (Math.abs(x) < FINITE ? Math.exp(x) : null);
    const half = t * Math.sqrt(part);
    return [Math.exp(middle), finite(middle - half), finite(middle + half)];
  }

  // Distances on logarithms in quadrature: profiler.stats.ratio_of.
  function ratio(ours, theirs) {
    const beside = (of, end) => (of[end] === null || of[end] <= 0 ? null : Math.abs(Math.log(of[end] / of[VALUE])));
    const value = ours[VALUE] / theirs[VALUE];
    const [low, high, baseLow, baseHigh] = [beside(ours, LOW), beside(ours, HIGH), beside(theirs, LOW), beside(theirs, HIGH)];
    return [
      value,
      low === null || baseHigh === null ? null : value / Math.exp(Math.hypot(low, baseHigh)),
      high === null || baseLow === null ? null : value * Math.exp(Math.hypot(high, baseLow)),
    ];
  }

  const estimate = (row, name) => [row[name], row[`${name}_low`], row[`${name}_high`]];

  function putOver(rows, item, name) {
    const row = rows[item.key], bases = item.over.map((key) => rows[key]);
    if (!bases.length || row[name] === null || bases.some((base) => !base || base[name] === null)) return;
    const isItself = item.over.length === 1 && item.over[0] === item.key;
    const theirs = bases.length > 1 ? overRepeats(bases.map((base) => base[name]), item.t) : estimate(bases[0], name);
    if (row[name] > 0 && theirs[VALUE] > 0) put(row, `${name}_ratio`, isItself ? [1, null, null] : ratio(estimate(row, name), theirs));
  }

  // Every row's columns (money.columns) by its key; null: not known.  ``inputs``: of price, utilization, pue,
  // tariff_usd_per_kwh and blend what is not as stated.
  function recompute(money, inputs) {
    const on = { ...money, ...money.stated, ...inputs };
    on.share = on.utilization * money.carrying_frac;
    const rows = Object.fromEntries(money.rows.map((item) => [item.key, compute(money, item, on)]));
    for (const item of money.rows) for (const name of money.ratios) putOver(rows, item, name);
    return rows;
  }

  // -------------------------------------------------------------------------------------------- charts

  // Whether one of the points has no more of both than (x, y) and less of one: profiler.charts.fronts.Rivals.
  function rivals(points, end) {
    const ranked = points.map((axes) => axes.map((axis) => axis[end])).sort((a, b) => a[0] - b[0]);
    let least = Infinity;
    const leastY = ranked.map(([, y]) => (least = Math.min(least, y)));
    const count = (isBelow) => {
      let [from, to] = [0, ranked.length];
      while (from < to) {
        const middle = (from + to) >> 1;
        if (isBelow(ranked[middle][0])) from = middle + 1;
        else to = middle;
      }
      return from;
    };
    return ([x, y]) => {
      const below = count((other) => other < x), upTo = count((other) => other <= x);
      return (upTo > 0 && leastY[upTo - 1] < y) || (below > 0 && leastY[below - 1] <= y);
    };
  }

  // Where rows stand among each other, less being better in both: profiler.charts.fronts.places.
  function places(rows, x, y) {
    const spans = rows.map((row) => {
      const axes = [x, y].map((name) => estimate(row, name));
      if (axes.some(([value]) => (value ?? null) === null)) return null;
      return axes.map(([value, low, high]) => [value, low ?? value, high ?? value]);
    });
    const others = spans.filter((own, at) => own && !rows[at].doubt);
    const atValue = rivals(others, VALUE), atWorst = rivals(others, HIGH);
    return spans.map((own, at) => {
      if (!own) return null;
      if (rows[at].doubt) return "not judged";
      if (!atValue(own.map((axis) => axis[VALUE]))) return "on the front";
      return atWorst(own.map((axis) => axis[LOW])) ? "behind it" : "not told apart from it";
    });
  }

  // A chart's rows with its money columns computed again; a row says by ``key`` which it is.
  function recomputeRows(chart, values) {
    const names = chart.columns.filter((column) => column.is_money).map((column) => column.name);
    const rows = chart.rows.map((row) => {
      const found = values[row.key];
      const known = found ? names.filter((name) => name in found) : [];
      return { ...row, ...Object.fromEntries(known.map((name) => [name, found[name]])) };
    });
    const { front, scaled_by: by } = chart.spec.usermeta || {};
    // Money by another split of the same bill is changed as the bill is.
    if (by) rows.forEach((row, at) => {
      const was = chart.rows[at];
      for (const name of names) if (name !== by && was[name]) row[name] = row[by] ? was[name] * (row[by] / was[by]) : null;
    });
    if (front) places(rows, front.x, front.y).forEach((place, at) => { rows[at].place = place; });
    return rows;
  }

  globalThis.money = { recompute, recomputeRows, places, problem };
})();
