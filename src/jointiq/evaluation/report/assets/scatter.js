// Image by image: a curve's point against another curve at the same rate.

(() => {
  const WIDTH = 860, HEIGHT = 480, LEFT = 58, RIGHT = 16, TOP = 12, BOTTOM = 48;
  const usable = DATA.curves.map((curve, index) => [index, curve.name]);
  const ours = usable.filter(([index]) => !DATA.curves[index].anchor);
  if (!ours.length || usable.length < 2) {
    byId("scatter").hidden = true;
    byId("scatter-none").hidden = false;
    return;
  }

  /** The points of a curve, from the lowest mean rate up: [name, rows]. */
  function points(curve) {
    const found = new Map();
    for (const row of curve.rows) found.set(row.point, [...(found.get(row.point) || []), row]);
    const mean = (rows) => rows.reduce((sum, row) => sum + row.bpp, 0) / rows.length;
    return [...found].sort((one, other) => mean(one[1]) - mean(other[1])).map(([name, rows]) => [name, rows, mean(rows)]);
  }

  /** PSNR of `rows` (one image's) at a rate, linear in log rate; null outside the rates measured. */
  function psnrAt(rows, bpp) {
    const sorted = [...rows].sort((one, other) => one.bpp - other.bpp);
    for (let i = 1; i < sorted.length; i++) {
      const [low, high] = [sorted[i - 1], sorted[i]];
      if (low.bpp <= bpp && bpp <= high.bpp) {
        if (high.bpp === low.bpp) return low.psnr;
        const share = Math.log(bpp / low.bpp) / Math.log(high.bpp / low.bpp);
        return low.psnr + share * (high.psnr - low.psnr);
      }
    }
    return null;
  }

  /** About `count` round numbers that cover low..high. */
  function ticks(low, high, count) {
    const raw = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let i = Math.floor(low / step + 1e-9); i <= Math.ceil(high / step - 1e-9); i++) found.push((i * step).toFixed(digits));
    return found;
  }

  function choosePoints() {
    const curve = DATA.curves[byId("scatter-curve").value];
    const pairs = points(curve).map(([, , mean], i) => [i, `${mean.toFixed(3)} bpp`]);
    options(byId("scatter-point"), pairs, Math.floor((pairs.length - 1) / 2));
    const others = usable.filter(([index]) => index !== Number(byId("scatter-curve").value));
    options(byId("scatter-anchor"), others, byId("scatter-anchor").value);
    draw();
  }

  function draw() {
    const curve = DATA.curves[byId("scatter-curve").value], anchor = DATA.curves[byId("scatter-anchor").value];
    const compared = points(curve)[byId("scatter-point").value][1].map((row) => {
      const same = anchor.rows.filter((other) => other.image === row.image);
      return { row, other: psnrAt(same, row.bpp) };
    });
    const known = compared.filter(({ other }) => other !== null);
    tell(curve, anchor, compared, known);
    const levels = compared.flatMap(({ row, other }) => (other === null ? [row.psnr] : [row.psnr, other]));
    const rates = ticks(Math.min(...compared.map(({ row }) => row.bpp)), Math.max(...compared.map(({ row }) => row.bpp)), 7);
    const heights = ticks(Math.min(...levels), Math.max(...levels), 7);
    const scale = (marks, from, to) => (value) =>
      from + ((value - marks[0]) / (marks[marks.length - 1] - marks[0] || 1)) * (to - from);
    const x = scale(rates, LEFT, WIDTH - RIGHT), y = scale(heights, HEIGHT - BOTTOM, TOP);
    const label = `PSNR over rate of each image: ${curve.name} against ${anchor.name}`;
    const svg = svgNode("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": label });
    for (const rate of rates) {
      svg.append(svgNode("line", { x1: x(rate), x2: x(rate), y1: TOP, y2: HEIGHT - BOTTOM, class: "grid" }),
        svgNode("text", { x: x(rate), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, rate));
    }
    for (const level of heights) {
      svg.append(svgNode("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(level), y2: y(level), class: "grid" }),
        svgNode("text", { x: LEFT - 8, y: y(level) + 4, "text-anchor": "end" }, level));
    }
    svg.append(
      svgNode("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, "rate (bits per pixel)"),
      svgNode("text", { transform: `translate(14 ${HEIGHT / 2}) rotate(-90)`, "text-anchor": "middle" }, "PSNR (dB)"));
    for (const pair of compared) svg.append(mark(pair, anchor, x, y));
    byId("scatter-plot").replaceChildren(svg);
  }

  /** One image: our dot, the other curve at the same rate, the line between them. */
  function mark({ row, other }, anchor, x, y) {
    const name = DATA.images[row.image].name;
    const told = other === null ? `${anchor.name} has no such rate`
      : `${anchor.name} ${other.toFixed(2)} dB (${(row.psnr - other >= 0 ? "+" : "") + (row.psnr - other).toFixed(2)} dB)`;
    const text = `${name}: ${row.bpp.toFixed(3)} bpp, ${row.psnr.toFixed(2)} dB; ${told}`;
    const link = svgNode("a", { href: "#viewer", "aria-label": text }, svgNode("title", {}, text));
    const across = x(row.bpp);
    if (other !== null) {
      const kind = row.psnr >= other ? "gain" : "loss";
      link.append(svgNode("line", { x1: across, x2: across, y1: y(row.psnr), y2: y(other), class: kind }),
        svgNode("circle", { cx: across, cy: y(other), r: 4.5, class: "anchor" }));
    }
    link.append(svgNode("circle", { cx: across, cy: y(row.psnr), r: 6, class: "ours" }));
    const leftward = across > WIDTH - 90;
    link.append(svgNode("text", { x: across + (leftward ? -9 : 9), y: y(row.psnr) + 4,
      "text-anchor": leftward ? "end" : "start" }, shortName(name)));
    link.addEventListener("click", () => document.dispatchEvent(new CustomEvent("show-image", { detail: name })));
    return link;
  }

  function tell(curve, anchor, compared, known) {
    const gains = known.map(({ row, other }) => row.psnr - other);
    const better = gains.filter((gain) => gain > 0).length;
    const mean = gains.reduce((sum, gain) => sum + gain, 0) / (gains.length || 1);
    const outside = compared.length - known.length;
    byId("scatter-summary").textContent =
      (gains.length
        ? `${curve.name} is better on ${better} of ${gains.length} images; mean difference at equal rate ${mean >= 0 ? "+" : ""}${mean.toFixed(2)} dB. `
        : `${anchor.name} has none of these images at these rates. `) +
      (outside && gains.length ? `On ${outside} more, ${anchor.name} has no such rate. ` : "") +
      `Dots: ${curve.name}. Circles: ${anchor.name} at the same rate, interpolated between its two nearest points. ` +
      "Choose a dot to see the picture.";
  }

  options(byId("scatter-curve"), ours);
  const firstAnchor = usable.find(([index]) => DATA.curves[index].anchor);
  options(byId("scatter-anchor"), usable, firstAnchor ? firstAnchor[0] : undefined);
  byId("scatter-curve").addEventListener("change", choosePoints);
  byId("scatter-point").addEventListener("change", draw);
  byId("scatter-anchor").addEventListener("change", draw);
  choosePoints();
})();
