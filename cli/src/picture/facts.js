// What the page is made of: the data, how they are written, and what they imply.

// What comes from the data is hostile: it reaches the document as text (`textContent`, or an attribute that only
// names things), never as markup, an address or a style.
const data = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);
const { images, layers, containers, garbage, policies } = data;

// Smaller boxes than this, in square pixels, are drawn as one.
const SMALLEST = 150;
// A box of images shows what is in it from this size on.
const OPEN_WIDTH = 34,
  OPEN_HEIGHT = 26,
  HEADER = 20;
// So many boxes of what the map shows are drawn, however small.
const AT_LEAST = 200;
const ROWS = 200,
  LINKS = 60,
  DAY = 86400;

const state = {
  mode: 'disk',
  colour: 'age',
  policy: -1,
  selected: null,
  trail: [],
  query: '',
  sort: 'freed',
  up: false,
  all: false,
};

// Words and numbers

// What cannot be seen, or turns around the text behind it, is shown as its number. Isolation (`bdi`) is not enough:
// it ends with a paragraph, which a name may hold the end of.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const seen = (text) => String(text).replace(HIDDEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
const say = (id, text) => {
  $(id).textContent = seen(text);
};
const el = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (name === 'text') made.textContent = seen(value);
    else if (name === 'click') made.addEventListener('click', value);
    else made.setAttribute(name, value === true ? '' : seen(value));
  }
  made.append(...children);
  return made;
};

// As Docker prints sizes: decimal units, four digits.
const bytes = (size) => {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];
  let unit = 0;
  while (size >= 1000 && unit + 1 < units.length) {
    size /= 1000;
    unit += 1;
  }
  return Number(size.toPrecision(4)) + units[unit];
};
const count = (n, one, many = one + 's') => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
const percent = (part, whole) => (whole > 0 ? `${((100 * part) / whole).toFixed(1)} %` : '–');
const date = (time) => {
  const when = new Date(time * 1000);
  return Number.isNaN(when.getTime()) ? '–' : when.toISOString().slice(0, 16).replace('T', ' ') + ' UTC';
};
const ago = (time) => {
  if (time === null) return 'never';
  const seconds = Math.max(0, data.made_at - time);
  const steps = [
    [365 * DAY, 'year'],
    [30 * DAY, 'month'],
    [7 * DAY, 'week'],
    [DAY, 'day'],
    [3600, 'hour'],
    [60, 'minute'],
  ];
  const step = steps.find(([length]) => seconds >= length);
  return step ? `${count(Math.floor(seconds / step[0]), step[1])} ago` : 'just now';
};
const short = (digest) => digest.slice(digest.indexOf(':') + 1).slice(0, 12);

// Facts that the data imply

const users = layers.map((layer) => [...new Set(layer.images)]);
const stacks = images.map((image) => [...new Set(image.layers)]);
const partsOf = (layer) => ({
  blob: state.mode === 'trees' ? 0 : layer.blob_bytes,
  tree: state.mode === 'blobs' ? 0 : layer.tree_bytes,
});
const sizeOf = (layer) => {
  const parts = partsOf(layer);
  return parts.blob + parts.tree;
};
const whole = (layer) => layer.blob_bytes + layer.tree_bytes;
const sum = (list, size) => list.reduce((all, item) => all + size(item), 0);
const unique = stacks.map((stack) =>
  sum(
    stack.filter((i) => users[i].length === 1),
    (i) => whole(layers[i]),
  ),
);
const shared = stacks.map((stack) =>
  sum(
    stack.filter((i) => users[i].length > 1),
    (i) => whole(layers[i]),
  ),
);
const lastUse = images.map(({ last_used, pulled }) =>
  last_used === null && pulled === null ? null : Math.max(last_used ?? pulled, pulled ?? last_used),
);
const nameOf = (image) => image.names[0] ?? `<none> ${short(image.id)}`;
const going = policies.map((policy) => {
  const gone = new Set(policy.images);
  return {
    images: gone,
    layers: new Set(
      [...layers.keys()].filter(
        (i) =>
          (users[i].length > 0 || policy.garbage) &&
          layers[i].containers === 0 &&
          users[i].every((image) => gone.has(image)),
      ),
    ),
  };
});
