// The map: what is in it, where it lies, and how one moves on it.

// The map as a tree of nodes. A key names the same thing for as long as the page is open.

let nodes = new Map();
const node = (key, kind, label, size, extra = {}) => {
  const made = { key, kind, label, size, children: [], parent: null, ...extra };
  nodes.set(key, made);
  return made;
};
const group = (key, kind, label, children, extra = {}) => {
  const kept = children.filter((child) => child.size > 0).sort((a, b) => b.size - a.size);
  const made = node(
    key,
    kind,
    label,
    sum(kept, (child) => child.size),
    { ...extra, children: kept },
  );
  for (const child of kept) child.parent = made;
  return made;
};
const build = () => {
  nodes = new Map();
  const leaf = (i) => node(`l${i}`, 'layer', short(layers[i].diff_id), sizeOf(layers[i]), { index: i });
  const of = (test) => [...users.keys()].filter((i) => test(users[i].length)).map(leaf);
  const own = images.map((image, i) =>
    group(`i${i}`, 'image', nameOf(image), stacks[i].filter((layer) => users[layer].length === 1).map(leaf), {
      index: i,
    }),
  );
  const others = [
    group(
      'shared',
      'group',
      'Shared by several images',
      of((n) => n > 1),
    ),
    group(
      'loose',
      'group',
      'Layers of no image',
      of((n) => n === 0),
    ),
  ];
  if (state.mode === 'disk') {
    others.push(
      group(
        'containers',
        'group',
        'Containers',
        containers.map(({ name, bytes: size }, i) => node(`c${i}`, 'container', name, size, { index: i })),
      ),
    );
    others.push(
      group(
        'garbage',
        'group',
        'Garbage',
        garbage.map(({ what, bytes: size }, i) => node(`g${i}`, 'garbage', what, size, { index: i })),
      ),
    );
  }
  const root = group('root', 'root', 'Everything', [...own, ...others]);
  // What was looked at stays in view where it still exists. What was gathered is no part of the new tree yet.
  const renewed = ({ key, kind, label, children, parent }) => {
    if (kind !== 'more') return nodes.get(key);
    const kept = children.map((child) => nodes.get(child.key)).filter((child) => child && child.size > 0);
    const size = sum(kept, (child) => child.size);
    return size > 0 && node(key, kind, label, size, { children: kept, parent: nodes.get(parent.key) ?? null });
  };
  state.trail = state.trail.map(renewed).filter(Boolean);
  return root;
};

const tone = ({ kind, index, children }) => {
  if (kind === 'container') return 'container';
  if (kind === 'garbage') return 'garbage';
  if (kind === 'group' || kind === 'more') {
    const tones = new Set(children.map(tone));
    return tones.size === 1 ? [...tones][0] : 'mixed';
  }
  if (state.colour === 'sharing') {
    const n = kind === 'image' ? 1 : users[index].length;
    return n === 0 ? 'garbage' : n === 1 ? 's0' : n === 2 ? 's1' : n < 10 ? 's2' : 's3';
  }
  const uses = (kind === 'image' ? [index] : users[index]).map((i) => lastUse[i]).filter((time) => time !== null);
  if (uses.length === 0) return 'a5';
  const days = (data.made_at - uses.reduce((a, b) => Math.max(a, b))) / DAY;
  return `a${[1, 7, 30, 90, Infinity].findIndex((limit) => days < limit)}`;
};
const LEGENDS = {
  age: [
    ['a0', 'used in the last day'],
    ['a1', '7 days'],
    ['a2', '30 days'],
    ['a3', '90 days'],
    ['a4', 'longer ago'],
    ['a5', 'never'],
  ],
  sharing: [
    ['s0', 'one image'],
    ['s1', 'two images'],
    ['s2', '3 to 9 images'],
    ['s3', '10 and more'],
  ],
};
const goes = ({ kind, index, children }) => {
  if (state.policy < 0) return false;
  if (kind === 'image') return going[state.policy].images.has(index);
  if (kind === 'layer') return going[state.policy].layers.has(index);
  if (kind === 'more' || kind === 'group') return children.length > 0 && children.every(goes);
  return kind === 'garbage' && policies[state.policy].garbage;
};

// Squarified treemap (Bruls, Huizing, van Wijk, 2000): rows along the shorter side, each closed when one more box
// would make its worst box longer. Areas are exactly proportional to sizes.
const squarify = (items, { x, y, w, h }, put) => {
  let left = sum(items, (item) => item.size);
  for (let start = 0; start < items.length;) {
    const side = Math.min(w, h),
      scale = (w * h) / left;
    const worst = (low, total) => {
      const square = (total * scale) ** 2,
        edge = side * side * scale;
      return Math.max((edge * items[start].size) / square, square / (edge * low));
    };
    let total = items[start].size,
      end = start + 1,
      now = worst(total, total);
    for (; end < items.length; end += 1) {
      const next = worst(items[end].size, total + items[end].size);
      if (next > now) break;
      now = next;
      total += items[end].size;
    }
    const depth = (total * scale) / side;
    let at = w < h ? x : y;
    for (; start < end; start += 1) {
      const length = (side * items[start].size) / total;
      put(items[start], w < h ? { x: at, y, w: length, h: depth } : { x, y: at, w: depth, h: length });
      at += length;
    }
    if (w < h) {
      y += depth;
      h -= depth;
    } else {
      x += depth;
      w -= depth;
    }
    left -= total;
  }
};
// Joins what would be too small to be seen.
const gathered = (parent, rect, least) => {
  const items = parent.children,
    scale = (rect.w * rect.h) / parent.size;
  let from = items.findIndex((item) => item.size * scale < SMALLEST);
  from = from < 0 ? items.length : Math.max(from, least);
  if (items.length - from < 2) return items;
  const rest = items.slice(from);
  const more = node(
    `more:${parent.key}`,
    'more',
    `${rest.length.toLocaleString('en')} more`,
    sum(rest, (item) => item.size),
    { children: rest, parent },
  );
  return [...items.slice(0, from), more].sort((a, b) => b.size - a.size);
};

// Drawing

const map = $('map');
let root = null,
  views = new Map();

const describe = (item) => {
  const words = [item.label, bytes(item.size)];
  if (item.kind === 'layer') {
    words.unshift('layer');
    if (users[item.index].length !== 1) words.push(`shared by ${count(users[item.index].length, 'image')}`);
  } else if (item.kind === 'image') words.push(`${count(item.children.length, 'layer')} of its own`);
  else if (item.kind === 'container') words.unshift('container');
  if (goes(item)) words.push('would go');
  return words.join(', ');
};
const draw = () => {
  root = build();
  const shown = state.trail.at(-1) ?? root;
  const rect = { x: 0, y: 0, w: map.clientWidth, h: map.clientHeight };
  views = new Map();
  const boxes = document.createDocumentFragment();
  const put = (into, level, origin, siblings) => (item, place) => {
    const box = el('div', {
      class: `box ${item.kind}`,
      id: `box-${item.key}`,
      role: 'treeitem',
      'aria-level': level,
      'aria-setsize': siblings.length,
      'aria-posinset': siblings.indexOf(item) + 1,
      'aria-label': describe(item),
      'data-key': item.key,
    });
    box.style.left = `${place.x - origin.x}px`;
    box.style.top = `${place.y - origin.y}px`;
    box.style.width = `${place.w}px`;
    box.style.height = `${place.h}px`;
    views.set(item.key, { item, box, rect: place, level });
    const isOpen =
      level === 1 &&
      item.kind !== 'more' &&
      item.children.length > 0 &&
      place.w >= OPEN_WIDTH &&
      place.h >= OPEN_HEIGHT;
    const hasName = place.w > 52 && place.h >= 18;
    if (isOpen) {
      box.classList.add('open');
      const head = hasName && place.h > 44 ? HEADER : 1;
      const inner = { x: place.x + 1, y: place.y + head, w: place.w - 2, h: place.h - head - 1 };
      const children = gathered(item, inner, 0);
      const inside = el('div', { role: 'group' });
      if (children.length === 1 && children[0].kind === 'more') {
        box.classList.remove('open');
        box.dataset.tone = tone(item);
      } else {
        squarify(children, inner, put(inside, level + 1, place, children));
        box.append(inside);
      }
      if (head > 1) box.append(title(item, place));
    } else {
      box.dataset.tone = tone(item);
      const parts = item.kind === 'layer' ? partsOf(layers[item.index]) : { blob: 0, tree: 0 };
      if (parts.blob > 0 && parts.tree > 0) {
        const part = el('div', { class: 'blob' });
        const share = `${(100 * parts.blob) / (parts.blob + parts.tree)}%`;
        if (place.w > place.h) part.style.width = share;
        else part.style.height = share;
        box.append(part);
      }
      if (hasName) box.append(title(item, place));
    }
    if (item.children.length > 0) box.setAttribute('aria-expanded', isOpen);
    into.append(box);
  };
  if (shown.size > 0) {
    const top = gathered(shown, rect, AT_LEAST);
    squarify(top, rect, put(boxes, 1, rect, top));
  } else boxes.append(el('p', { class: 'empty', text: 'Nothing here takes any space.' }));
  map.replaceChildren(boxes);
  drawTrail();
  mark();
};
const title = (item, { w, h }) => {
  // Of a long name the end says more than the registry it begins with.
  const label =
    item.kind === 'image' && item.label.length * 7 > w - 60
      ? item.label.slice(item.label.lastIndexOf('/') + 1)
      : item.label;
  const name = el('span', { class: 'name' }, el('bdi', { text: label }));
  if (w > 120 || (item.kind !== 'image' && w > 72 && h > 36))
    name.append(' ', el('span', { class: 'size', text: bytes(item.size) }));
  return name;
};
const drawTrail = () => {
  const path = [root, ...state.trail];
  $('trail').replaceChildren(
    ...path.map((item, i) =>
      i === path.length - 1
        ? el('span', { 'aria-current': 'location' }, el('bdi', { text: item.label }), ` ${bytes(item.size)}`)
        : el(
            'button',
            {
              type: 'button',
              class: 'link',
              click: () => {
                state.trail = state.trail.slice(0, i);
                draw();
                map.focus();
              },
            },
            el('bdi', { text: item.label }),
          ),
    ),
  );
};

// What is selected, related to it, found, and what would go: all are marks on boxes that stay where they are.

const related = () => {
  const keys = new Set(),
    [kind, index] = [state.selected?.[0], Number(state.selected?.slice(1))];
  if (!nodes.has(state.selected)) return keys;
  if (nodes.get(state.selected).kind === 'layer') for (const image of users[index]) keys.add(`i${image}`);
  if (nodes.get(state.selected).kind === 'image') for (const layer of stacks[index]) keys.add(`l${layer}`);
  if (kind === 'c')
    images.forEach((image, i) => {
      if (image.containers.includes(containers[index]?.name)) keys.add(`i${i}`);
    });
  return keys;
};
const matches = (item) => {
  const has = (text) => text.toLowerCase().includes(state.query);
  if (item.kind === 'image')
    return [...images[item.index].names, images[item.index].id].some(has) || item.children.some(matches);
  if (item.kind === 'layer')
    return (
      has(layers[item.index].diff_id) ||
      has(layers[item.index].blob ?? '') ||
      users[item.index].some((i) => images[i].names.some(has))
    );
  return item.children.length > 0 ? item.children.some(matches) : has(item.label);
};
const mark = () => {
  const close = related();
  for (const { item, box } of views.values()) {
    const holds = (test) =>
      test(item) || ((item.kind === 'more' || !box.classList.contains('open')) && item.children.some(test));
    const isSelected =
      item.key === state.selected ||
      (item.kind === 'more' && item.children.some((child) => child.key === state.selected));
    const isRelated = holds((one) => close.has(one.key));
    const inSelected = item.parent !== null && item.parent.key === state.selected;
    const aroundIt = item.children.some((child) => child.key === state.selected || close.has(child.key));
    box.classList.toggle('selected', isSelected);
    box.classList.toggle('related', isRelated && !isSelected && !inSelected);
    box.classList.toggle('goes', goes(item));
    const isFar =
      state.selected !== null &&
      close.size > 0 &&
      !(isSelected || isRelated || inSelected || aroundIt || (item.parent && close.has(item.parent.key)));
    box.classList.toggle('far', isFar || (state.query !== '' && !matches(item)));
    box.setAttribute('aria-selected', isSelected);
    box.setAttribute(
      'aria-label',
      seen(describe(item) + (isRelated && !isSelected ? ', belongs to the selection' : '')),
    );
  }
  const view = viewOf(state.selected);
  if (view) map.setAttribute('aria-activedescendant', view.box.id);
  else map.removeAttribute('aria-activedescendant');
};
// The box of something, or the one that it is drawn as a part of.
const viewOf = (key) => {
  if (views.has(key)) return views.get(key);
  const holds = (item) => item.children.some((child) => child.key === key);
  return (
    [...views.values()].find(({ item }) => item.kind === 'more' && holds(item)) ??
    [...views.values()].find(({ item }) => holds(item))
  );
};

const select = (key, focus) => {
  state.selected = key;
  if (key !== null && state.trail.length > 0 && !viewOf(key)) {
    // It is not in what is open.
    state.trail = [];
    draw();
  } else mark();
  drawPanel();
  for (const row of $('table').querySelectorAll('tr[data-key]'))
    row.setAttribute('aria-selected', row.dataset.key === key);
  if (focus === 'panel') $('panel').querySelector('h2').focus();
};
const open = (item) => {
  if (item.children.length === 0) {
    select(item.key, 'panel');
    return;
  }
  state.trail.push(item);
  draw();
  const first = item.children[0].key;
  select(views.has(first) ? first : ([...views.keys()][0] ?? null));
};
const up = () => {
  const item = nodes.get(state.selected);
  const parent = item && views.get(item.parent?.key);
  if (parent) select(parent.item.key);
  else if (state.trail.length > 0) {
    const left = state.trail.pop();
    draw();
    select(left.key);
  } else select(null);
};

// The nearest box of the same depth on that side: first by the gap, then by how far it is off the line.
const neighbour = ({ rect: from, level }, key) => {
  const along = key === 'ArrowLeft' || key === 'ArrowRight' ? ['x', 'w', 'y', 'h'] : ['y', 'h', 'x', 'w'];
  const forward = key === 'ArrowRight' || key === 'ArrowDown';
  const [at, length, across, width] = along;
  const middle = from[across] + from[width] / 2;
  let best = null,
    least = Infinity;
  for (const view of views.values()) {
    const to = view.rect;
    const gap = forward ? to[at] - (from[at] + from[length]) : from[at] - (to[at] + to[length]);
    if (view.level !== level || gap < -1.5) continue;
    const off = Math.max(to[across] - middle, middle - to[across] - to[width], 0);
    const cost = Math.max(gap, 0) + 2 * off;
    if (cost < least) {
      least = cost;
      best = view;
    }
  }
  return best;
};
map.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const view = viewOf(state.selected);
  const first = [...views.values()].filter(({ level }) => level === (view?.level ?? 1));
  let to = null;
  if (event.key.startsWith('Arrow')) to = view ? (neighbour(view, event.key) ?? view) : first[0];
  else if (event.key === 'Home') to = first[0];
  else if (event.key === 'End') to = first.at(-1);
  else if (event.key === 'Enter' || event.key === ' ') {
    if (view) open(view.item);
  } else if (event.key === 'Escape') up();
  else return;
  event.preventDefault();
  if (to) select(to.item.key);
});
const boxAt = (event) => views.get(event.target.closest('.box')?.dataset.key);
map.addEventListener('click', (event) => {
  const view = boxAt(event);
  if (view) select(view.item.key);
});
map.addEventListener('dblclick', (event) => {
  const view = boxAt(event);
  if (view && view.item.children.length > 0) open(view.item);
});
map.addEventListener('focus', () => {
  if (state.selected === null) {
    const first = views.values().next().value;
    if (first) select(first.item.key);
  }
});
map.addEventListener('pointermove', (event) => {
  const view = boxAt(event);
  say('hint', view ? describe(view.item) : '');
});
map.addEventListener('pointerleave', () => {
  say('hint', '');
});
