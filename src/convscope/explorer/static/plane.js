// Points by the hundred thousand on a canvas: drawn into typed memory, and found under the pointer by what was drawn.

const OPAQUE = 0xff000000;

/** "#rrggbb" as a pixel of an image's memory. */
export const packed = (colour) => OPAQUE | (parseInt(colour.slice(5, 7), 16) << 16) | (parseInt(colour.slice(3, 5), 16) << 8) | parseInt(colour.slice(1, 3), 16);

/** A disc: offsets from its middle, and how much of each pixel it covers, of 256. */
function disc(size, wide, strength) {
  const radius = size / 2;
  const reach = Math.max(1, Math.ceil(radius));
  const [offsets, covers] = [[], []];
  for (let row = -reach; row <= reach; row++) {
    for (let column = -reach; column <= reach; column++) {
      const cover = Math.round(256 * strength * Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(row, column))));
      if (cover) { offsets.push(row * wide + column); covers.push(cover); }
    }
  }
  return { offsets: Int32Array.from(offsets), covers: Int32Array.from(covers) };
}

export class Plane {
  /** `x` and `y` of the points; `colours` and `chosen`, a flag each or null, may be set at any time. */
  constructor(canvas, x, y) {
    Object.assign(this, { canvas, x, y, colours: new Uint32Array(x.length), chosen: null });
    this.pen = canvas.getContext("2d", { alpha: false });
  }

  /** Draws a view `{ left, top, unit }`, of which a pixel of the page spans a unit, `width` by `height`; every `step`th point. */
  draw({ left, top, unit }, width, height, size, paper, { ratio = window.devicePixelRatio || 1, step = 1 } = {}) {
    const [inner, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    const margin = Math.ceil(size * ratio) + 2; // so that a disc at the edge needs no care
    const wide = inner + 2 * margin;
    const tall = high + 2 * margin;
    if (this.canvas.width !== inner || this.canvas.height !== high || this.margin !== margin) {
      Object.assign(this.canvas, { width: inner, height: high });
      Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
      this.image = new ImageData(wide, tall);
      this.pixels = new Uint32Array(this.image.data.buffer);
      this.owners = new Int32Array(wide * tall); // the point that is seen at each pixel, from 1
    }
    Object.assign(this, { margin, wide, tall, ratio, step });
    this.pixels.fill(packed(paper));
    this.owners.fill(0);
    const at = { left, top, scale: ratio / unit };
    if (this.chosen) {
      this.#stamp(disc(size * ratio, wide, 0.13), at, 0);
      this.#stamp(disc(Math.max(size, 4) * ratio, wide, 0.95), at, 1);
    } else {
      this.#stamp(disc(size * ratio, wide, 0.78), at, 0);
    }
    this.pen.putImageData(this.image, -margin, -margin);
  }

  #stamp({ offsets, covers }, { left, top, scale }, wanted) {
    const { x, y, colours, chosen, pixels, owners, wide, tall, margin, step } = this;
    const near = margin - 1;
    for (let i = 0; i < x.length; i += step) {
      if (chosen && chosen[i] !== wanted) continue;
      const column = Math.round((x[i] - left) * scale) + margin;
      const row = Math.round((top - y[i]) * scale) + margin;
      if (!(column >= near && row >= near && column < wide - near && row < tall - near)) continue;
      const middle = row * wide + column;
      const colour = colours[i];
      const [redblue, green] = [colour & 0xff00ff, colour & 0xff00];
      for (let k = 0; k < offsets.length; k++) {
        const place = middle + offsets[k];
        const cover = covers[k];
        const was = pixels[place];
        const [other, middling] = [was & 0xff00ff, was & 0xff00];
        pixels[place] = OPAQUE | ((other + (Math.imul(redblue - other, cover) >> 8)) & 0xff00ff) | ((middling + (Math.imul(green - middling, cover) >> 8)) & 0xff00);
        owners[place] = i + 1;
      }
    }
  }

  /** The point that is drawn nearest to a place of the canvas, in pixels of the page; -1 where none is within `reach`. */
  pick(column, row, reach = 5) {
    const { owners, wide, tall, margin, ratio } = this;
    if (!owners) return -1;
    const [c, r, far] = [Math.round(column * ratio) + margin, Math.round(row * ratio) + margin, Math.round(reach * ratio)];
    let [found, nearest] = [-1, far * far + 1];
    for (let dy = -far; dy <= far; dy++) {
      for (let dx = -far; dx <= far; dx++) {
        const distance = dx * dx + dy * dy;
        if (distance >= nearest || r + dy < 0 || c + dx < 0 || r + dy >= tall || c + dx >= wide) continue;
        const owner = owners[(r + dy) * wide + c + dx];
        if (owner) [found, nearest] = [owner - 1, distance];
      }
    }
    return found;
  }

  /** Marks in `flags` the points within a ring of [x, y]. */
  within(ring, flags) {
    const { x, y } = this;
    const [xs, ys] = [ring.map(([each]) => each), ring.map(([, each]) => each)];
    const [low, high, down, up] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    for (let i = 0; i < x.length; i++) {
      const [px, py] = [x[i], y[i]];
      if (px < low || px > high || py < down || py > up) continue;
      let inside = false;
      for (let a = 0, b = xs.length - 1; a < xs.length; b = a++) {
        if (ys[a] > py !== ys[b] > py && px < ((xs[b] - xs[a]) * (py - ys[a])) / (ys[b] - ys[a]) + xs[a]) inside = !inside;
      }
      if (inside) flags[i] = 1;
    }
    return flags;
  }
}

/** A line with fewer corners, none of which lies further than `slack` from where it was (Douglas and Peucker 1973). */
export function simplified(line, slack) {
  if (line.length < 3) return line;
  const [[ax, ay], [bx, by]] = [line[0], line.at(-1)];
  const length = Math.hypot(bx - ax, by - ay);
  let [most, far] = [0, 0];
  for (let i = 1; i < line.length - 1; i++) {
    const [px, py] = line[i];
    const distance = length ? Math.abs((bx - ax) * (ay - py) - (ax - px) * (by - ay)) / length : Math.hypot(px - ax, py - ay);
    if (distance > most) [most, far] = [distance, i];
  }
  return most <= slack ? [line[0], line.at(-1)] : [...simplified(line.slice(0, far + 1), slack).slice(0, -1), ...simplified(line.slice(far), slack)];
}
