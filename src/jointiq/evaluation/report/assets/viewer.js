// Two codecs on one picture at the nearest rate: side by side, under a divider, or in turn; and crops.

(() => {
  const ORIGINAL = "original";
  const MODES = ["side", "slider", "flip"];
  const ZOOMS = ["2", "4", "8"];
  const FAR = 0.05; // rates further apart than this are pointed out
  const shownImages = DATA.images.map((image, index) => ({ ...image, index })).filter((image) => image.shown);
  if (!shownImages.length) {
    byId("viewer-body").hidden = true;
    return;
  }
  const addresses = new Map();
  const bitmaps = new Map();
  let current = {}; // image, a, b: what is compared; a, b: {name, row, picture}
  let flipped = false;

  /** The data address of an embedded picture. */
  function address(picture) {
    if (!addresses.has(picture)) {
      const holder = byId(`picture-${picture}`);
      addresses.set(picture, `data:${holder.dataset.media};base64,${holder.textContent}`);
    }
    return addresses.get(picture);
  }

  /** The picture, decoded, for the crops. */
  function bitmap(picture) {
    if (!bitmaps.has(picture)) {
      const image = new Image();
      image.src = address(picture);
      bitmaps.set(picture, image.decode().then(() => image));
    }
    return bitmaps.get(picture);
  }

  const rowsOf = (curve, image) => curve.rows
    .filter((row) => row.image === image.index && row.picture !== null)
    .sort((one, other) => one.bpp - other.bpp);

  const codecsOf = (image) => DATA.curves.filter((curve) => rowsOf(curve, image).length);

  const nearest = (rows, bpp) =>
    rows.reduce((best, row) => (Math.abs(Math.log(row.bpp / bpp)) < Math.abs(Math.log(best.bpp / bpp)) ? row : best));

  const numbers = (row) => `${row.bpp.toFixed(3)} bpp, ${row.psnr.toFixed(2)} dB`;

  /** Bring the controls in line with the state, choosing what it leaves open, and show. */
  function update() {
    const name = options(byId("image"), shownImages.map((image) => [image.name, image.name]), state.get("image"));
    const image = shownImages.find((one) => one.name === name);
    const codecs = codecsOf(image).map((curve) => [curve.name, curve.name]);
    const a = DATA.curves.find((curve) => curve.name === options(byId("codec-a"), codecs, state.get("a")));
    const others = codecs.filter(([key]) => !a || key !== a.name);
    if (image.picture !== null) others.push([ORIGINAL, ORIGINAL]);
    const anchor = others.find(([key]) => DATA.curves.some((curve) => curve.name === key && curve.anchor));
    const b = options(byId("codec-b"), others, state.get("b") || (anchor && anchor[0]));
    const rows = a ? rowsOf(a, image) : [];
    const rate = options(byId("rate"), rows.map((row, i) => [i, numbers(row)]), nearestIndex(rows));
    const row = rows[rate];
    current = { image, a: row && { name: a.name, row, picture: row.picture }, b: other(image, b, row) };
    const mode = MODES.includes(state.get("mode")) ? state.get("mode") : "side";
    document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
    byId("zoom").value = ZOOMS.includes(state.get("zoom")) ? state.get("zoom") : "4";
    byId("divider").value = state.has("split") ? state.get("split") : 50;
    drawStage(mode);
    drawMatch();
    drawCrops();
  }

  /** The point of A whose rate is nearest to the one last chosen, so that it stays when image or codec change. */
  function nearestIndex(rows) {
    const wanted = Number(state.get("rate"));
    return wanted > 0 && rows.length ? rows.indexOf(nearest(rows, wanted)) : Math.floor((rows.length - 1) / 2);
  }

  function other(image, name, row) {
    if (name === ORIGINAL) return { name, row: null, picture: image.picture };
    const curve = DATA.curves.find((one) => one.name === name);
    if (!curve || !row) return undefined;
    const found = nearest(rowsOf(curve, image), row.bpp);
    return { name, row: found, picture: found.picture };
  }

  function pane(side, mode) {
    const element = node("div", { class: `pane ${side}`, "data-side": side });
    const { name, row, picture } = current[side];
    const told = row ? `${name}: ${numbers(row)}` : name;
    const image = node("img", { src: address(picture), alt: `${current.image.name} by ${told}` });
    element.append(image, node("span", { class: "tag" }, `${side.toUpperCase()}  ${told}`), node("div", { class: "window" }));
    return element;
  }

  function drawStage(mode) {
    const stage = byId("stage");
    stage.className = mode;
    stage.style.setProperty("--natural", `${current.image.shown[2]}px`);
    stage.style.setProperty("--split", `${byId("divider").value}%`);
    const sides = ["a", "b"].filter((side) => current[side]);
    const shown = mode === "flip" && sides.length > 1 ? [flipped ? "b" : "a"] : sides;
    stage.replaceChildren(...shown.map((side) => pane(side, mode)));
    byId("divider-label").hidden = mode !== "slider";
    byId("flip").hidden = mode !== "flip";
    byId("flip").textContent = `show ${flipped ? "A" : "B"} (f)`;
  }

  function drawMatch() {
    const { image, a, b } = current;
    const parts = [`${image.name}, ${image.size.join("x")}`];
    if (image.shown[2] < image.size[0] || image.shown[3] < image.size[1]) {
      parts[0] += ` (middle ${image.shown[2]}x${image.shown[3]} shown)`;
    }
    const match = byId("match");
    if (a && b && b.row) {
      const apart = b.row.bpp / a.row.bpp - 1;
      const gain = a.row.psnr - b.row.psnr;
      parts.push(
        `B spends ${Math.abs(100 * apart).toFixed(1)} % ${apart < 0 ? "fewer" : "more"} bits than A`,
        `PSNR of A is ${Math.abs(gain).toFixed(2)} dB ${gain < 0 ? "lower" : "higher"}`);
      match.replaceChildren(parts.join("; ") + ". ");
      if (Math.abs(apart) > FAR) {
        const warning = `The nearest rate there is lies ${Math.abs(100 * apart).toFixed(0)} % off.`;
        match.append(node("span", { class: "far" }, warning));
      }
    } else {
      match.textContent = parts.join("; ") + ".";
    }
  }

  /** Part of the shown picture that the crops show, in its pixels: left, top, width, height. */
  function cropWindow() {
    const [, , width, height] = current.image.shown;
    const zoom = Number(byId("zoom").value);
    const canvas = byId("crops").querySelector("canvas");
    const across = Math.min(width, (canvas ? canvas.clientWidth : 320) / zoom);
    const down = Math.min(height, ((canvas ? canvas.clientWidth : 320) * 0.75) / zoom);
    const middle = (key, size) => Number(state.has(key) ? state.get(key) : size / 2);
    const clamp = (value, most) => Math.max(0, Math.min(Math.round(value), Math.floor(most)));
    return [clamp(middle("x", width) - across / 2, width - across), clamp(middle("y", height) - down / 2, height - down),
      across, down];
  }

  async function drawCrops() {
    const { image, a, b } = current;
    const crops = [];
    if (image.picture !== null) crops.push(["", { name: ORIGINAL, row: null, picture: image.picture }]);
    if (a) crops.push(["a", a]);
    if (b && b.row) crops.push(["b", b]);
    const holder = byId("crops");
    if (holder.childElementCount !== crops.length) {
      holder.replaceChildren(...crops.map(() => node("figure", {}, node("canvas"), node("figcaption"))));
    }
    const [left, top, across, down] = cropWindow();
    for (const marker of document.querySelectorAll("#stage .window")) {
      const percent = (value, of) => `${(100 * value) / of}%`;
      const [, , width, height] = image.shown;
      Object.assign(marker.style, { left: percent(left, width), top: percent(top, height),
        width: percent(across, width), height: percent(down, height) });
    }
    const drawn = await Promise.all(crops.map(([, { picture }]) => bitmap(picture)));
    if (current.image !== image || current.a !== a || current.b !== b) return; // something else was chosen meanwhile
    crops.forEach(([side, { name, row }], i) => {
      const [canvas, caption] = holder.children[i].children;
      const ratio = window.devicePixelRatio || 1;
      canvas.width = Math.round(canvas.clientWidth * ratio);
      canvas.height = Math.round(canvas.clientWidth * 0.75 * ratio);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      const scale = Number(byId("zoom").value) * ratio;
      context.drawImage(drawn[i], left, top, across, down, 0, 0, across * scale, down * scale);
      caption.replaceChildren(...(side ? [node("b", { class: side }, side.toUpperCase()), " "] : []),
        row ? `${name}: ${numbers(row)}${row.ms_ssim === null ? "" : `, MS-SSIM ${row.ms_ssim.toFixed(4)}`}` +
          `${row.bytes === null ? "" : `, ${row.bytes} bytes`}` : name);
    });
  }

  function choose(changes) {
    remember(changes);
    update();
  }

  /** Show another image at the same point of A's curve. */
  function chooseImage(name) {
    const image = shownImages.find((one) => one.name === name);
    const curve = current.a && DATA.curves.find((one) => one.name === current.a.name);
    const same = image && curve && rowsOf(curve, image).find((row) => row.point === current.a.row.point);
    choose(same ? { image: name, rate: same.bpp.toFixed(4) } : { image: name });
  }

  /** Take the next or previous entry of a select. */
  function step(select, by) {
    const index = select.selectedIndex + by;
    if (index < 0 || index >= select.options.length) return;
    select.selectedIndex = index;
    select.dispatchEvent(new Event("change"));
  }

  function moveCrop(x, y) {
    const [, , width, height] = current.image.shown;
    const inside = (value, most) => Math.round(Math.max(0, Math.min(value, most)));
    remember({ x: inside(x, width), y: inside(y, height) });
    drawCrops();
  }

  function split(percent) {
    byId("divider").value = percent;
    remember({ split: byId("divider").value });
    byId("stage").style.setProperty("--split", `${byId("divider").value}%`);
  }

  /** A pointer in a picture moves the divider, or the crop. */
  function point(event) {
    const [, , width, height] = current.image.shown;
    const area = event.currentTarget.classList.contains("slider") ? event.currentTarget : event.target.closest(".pane");
    if (!area || !(event.buttons & 1)) return;
    const box = area.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
    if (event.currentTarget.classList.contains("slider")) split(Math.round(100 * Math.max(0, Math.min(1, across))));
    if (!event.currentTarget.classList.contains("slider") || event.type === "pointerdown") {
      moveCrop(across * width, down * height);
    }
  }

  function flip() {
    flipped = !flipped;
    drawStage("flip");
    drawCrops();
  }

  byId("image").addEventListener("change", (event) => chooseImage(event.target.value));
  byId("codec-a").addEventListener("change", (event) => choose({ a: event.target.value }));
  byId("codec-b").addEventListener("change", (event) => choose({ b: event.target.value }));
  byId("rate").addEventListener("change", (event) => {
    const curve = DATA.curves.find((one) => one.name === byId("codec-a").value);
    choose({ rate: rowsOf(curve, current.image)[event.target.value].bpp.toFixed(4) });
  });
  byId("zoom").addEventListener("change", (event) => choose({ zoom: event.target.value }));
  byId("divider").addEventListener("input", (event) => split(event.target.value));
  byId("flip").addEventListener("click", flip);
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", () => choose({ mode: radio.value }));
  }
  const stage = byId("stage");
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture?.(event.pointerId);
    stage.focus({ preventScroll: true });
    point(event);
  });
  stage.addEventListener("pointermove", point);
  stage.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const [left, top, across, down] = cropWindow();
    const far = event.shiftKey ? 32 : 4;
    moveCrop(left + across / 2 + far * way[0], top + down / 2 + far * way[1]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "SELECT") return;
    const act = {
      "[": () => step(byId("image"), -1), "]": () => step(byId("image"), 1),
      ",": () => step(byId("rate"), -1), ".": () => step(byId("rate"), 1),
      "+": () => step(byId("zoom"), 1), "-": () => step(byId("zoom"), -1),
      1: () => choose({ mode: "side" }), 2: () => choose({ mode: "slider" }), 3: () => choose({ mode: "flip" }),
      f: () => (stage.classList.contains("flip") ? flip() : choose({ mode: "flip" })),
    }[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });
  document.addEventListener("show-image", (event) => chooseImage(event.detail));
  addEventListener("resize", () => drawCrops());
  update();
  drawCrops(); // once more: only now do the canvases have their sizes
})();
