'use strict';
(() => {
  // What comes from the data is hostile: it reaches the document as text (`textContent`, or an attribute that only
  // names things), never as markup, an address or a style.
  const data = JSON.parse(document.getElementById('data').textContent);
  const $ = (id) => document.getElementById(id);
  const { images, layers, containers, garbage, policies } = data;

  // Smaller boxes than this, in square pixels, are drawn as one.
  const SMALLEST = 150;
  // A box of images shows what is in it from this size on.
  const OPEN_WIDTH = 34, OPEN_HEIGHT = 26, HEADER = 20;
  // So many boxes of what the map shows are drawn, however small.
  const AT_LEAST = 200;
  const ROWS = 200, LINKS = 60, DAY = 86400;

  const state = { mode: 'disk', colour: 'age', policy: -1, selected: null, trail: [], query: '', sort: 'freed', up: false, all: false };

  // Words and numbers

  // What cannot be seen, or turns around the text behind it, is shown as its number. Isolation (`bdi`) is not enough:
  // it ends with a paragraph, which a name may hold the end of.
  const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const seen = (text) => String(text).replace(HIDDEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const say = (id, text) => { $(id).textContent = seen(text); };
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
    while (size >= 1000 && unit + 1 < units.length) { size /= 1000; unit += 1; }
    return Number(size.toPrecision(4)) + units[unit];
  };
  const count = (n, one, many = one + 's') => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
  const percent = (part, whole) => (whole > 0 ? `${(100 * part / whole).toFixed(1)} %` : '–');
  const date = (time) => {
    const when = new Date(time * 1000);
    return Number.isNaN(when.getTime()) ? '–' : when.toISOString().slice(0, 16).replace('T', ' ') + ' UTC';
  };
  const ago = (time) => {
    if (time === null) return 'never';
    const seconds = Math.max(0, data.made_at - time);
    const steps = [[365 * DAY, 'year'], [30 * DAY, 'month'], [7 * DAY, 'week'], [DAY, 'day'], [3600, 'hour'], [60, 'minute']];
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
  const sizeOf = (layer) => { const parts = partsOf(layer); return parts.blob + parts.tree; };
  const whole = (layer) => layer.blob_bytes + layer.tree_bytes;
  const sum = (list, size) => list.reduce((all, item) => all + size(item), 0);
  const unique = stacks.map((stack) => sum(stack.filter((i) => users[i].length === 1), (i) => whole(layers[i])));
  const shared = stacks.map((stack) => sum(stack.filter((i) => users[i].length > 1), (i) => whole(layers[i])));
  const lastUse = images.map(({ last_used, pulled }) =>
    (last_used === null && pulled === null ? null : Math.max(last_used ?? pulled, pulled ?? last_used)));
  const nameOf = (image) => image.names[0] ?? `<none> ${short(image.id)}`;
  const going = policies.map((policy) => {
    const gone = new Set(policy.images);
    return {
      images: gone,
      layers: new Set([...layers.keys()].filter((i) => (users[i].length > 0 || policy.garbage) && layers[i].containers === 0 && users[i].every((image) => gone.has(image)))),
    };
  });

  // The map as a tree of nodes. A key names the same thing for as long as the page is open.

  let nodes = new Map();
  const node = (key, kind, label, size, extra = {}) => {
    const made = { key, kind, label, size, children: [], parent: null, ...extra };
    nodes.set(key, made);
    return made;
  };
  const group = (key, kind, label, children, extra = {}) => {
    const kept = children.filter((child) => child.size > 0).sort((a, b) => b.size - a.size);
    const made = node(key, kind, label, sum(kept, (child) => child.size), { ...extra, children: kept });
    for (const child of kept) child.parent = made;
    return made;
  };
  const build = () => {
    nodes = new Map();
    const leaf = (i) => node(`l${i}`, 'layer', short(layers[i].diff_id), sizeOf(layers[i]), { index: i });
    const of = (test) => [...users.keys()].filter((i) => test(users[i].length)).map(leaf);
    const own = images.map((image, i) =>
      group(`i${i}`, 'image', nameOf(image), stacks[i].filter((layer) => users[layer].length === 1).map(leaf), { index: i }));
    const others = [
      group('shared', 'group', 'Shared by several images', of((n) => n > 1)),
      group('loose', 'group', 'Layers of no image', of((n) => n === 0)),
    ];
    if (state.mode === 'disk') {
      others.push(group('containers', 'group', 'Containers', containers.map(({ name, bytes: size }, i) => node(`c${i}`, 'container', name, size, { index: i }))));
      others.push(group('garbage', 'group', 'Garbage', garbage.map(({ what, bytes: size }, i) => node(`g${i}`, 'garbage', what, size, { index: i }))));
    }
    const root = group('root', 'root', 'Everything', [...own, ...others]);
    // What was looked at stays in view where it still exists.
    state.trail = state.trail.map((old) => nodes.get(old.key)).filter(Boolean);
    return root;
  };

  const tone = ({ kind, index, children }) => {
    if (kind === 'container') return 'container';
    if (kind === 'garbage') return 'garbage';
    if (kind === 'group' || kind === 'more') return children.length ? tone(children[0]) : 'garbage';
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
    age: [['a0', 'used in the last day'], ['a1', '7 days'], ['a2', '30 days'], ['a3', '90 days'], ['a4', 'longer ago'], ['a5', 'never']],
    sharing: [['s0', 'one image'], ['s1', 'two images'], ['s2', '3 to 9 images'], ['s3', '10 and more']],
  };
  const goes = ({ kind, index, key, children }) => {
    if (state.policy < 0) return false;
    if (kind === 'image') return going[state.policy].images.has(index);
    if (kind === 'layer') return going[state.policy].layers.has(index);
    if (kind === 'more') return children.every(goes);
    return policies[state.policy].garbage && (kind === 'garbage' || key === 'garbage');
  };

  // Squarified treemap (Bruls, Huizing, van Wijk, 2000): rows along the shorter side, each closed when one more box
  // would make its worst box longer. Areas are exactly proportional to sizes.
  const squarify = (items, { x, y, w, h }, put) => {
    let left = sum(items, (item) => item.size);
    for (let start = 0; start < items.length;) {
      const side = Math.min(w, h), scale = w * h / left;
      const worst = (low, total) => {
        const square = (total * scale) ** 2, edge = side * side * scale;
        return Math.max(edge * items[start].size / square, square / (edge * low));
      };
      let total = items[start].size, end = start + 1, now = worst(total, total);
      for (; end < items.length; end += 1) {
        const next = worst(items[end].size, total + items[end].size);
        if (next > now) break;
        now = next;
        total += items[end].size;
      }
      const depth = total * scale / side;
      let at = w < h ? x : y;
      for (; start < end; start += 1) {
        const length = side * items[start].size / total;
        put(items[start], w < h ? { x: at, y, w: length, h: depth } : { x, y: at, w: depth, h: length });
        at += length;
      }
      if (w < h) { y += depth; h -= depth; } else { x += depth; w -= depth; }
      left -= total;
    }
  };
  // Joins what would be too small to be seen.
  const gathered = (parent, rect, least) => {
    const items = parent.children, scale = rect.w * rect.h / parent.size;
    let from = items.findIndex((item) => item.size * scale < SMALLEST);
    from = from < 0 ? items.length : Math.max(from, least);
    if (items.length - from < 2) return items;
    const rest = items.slice(from);
    const more = node(`more:${parent.key}`, 'more', `${rest.length.toLocaleString('en')} more`, sum(rest, (item) => item.size), { children: rest, parent });
    return [...items.slice(0, from), more].sort((a, b) => b.size - a.size);
  };

  // Drawing

  const map = $('map');
  let root = null, views = new Map();

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
      const box = el('div', { class: `box ${item.kind}`, id: `box-${item.key}`, role: 'treeitem', 'aria-level': level, 'aria-setsize': siblings.length, 'aria-posinset': siblings.indexOf(item) + 1, 'aria-label': describe(item), 'data-key': item.key });
      box.style.left = `${place.x - origin.x}px`;
      box.style.top = `${place.y - origin.y}px`;
      box.style.width = `${place.w}px`;
      box.style.height = `${place.h}px`;
      views.set(item.key, { item, box, rect: place, level });
      const isOpen = level === 1 && item.kind !== 'more' && item.children.length > 0 && place.w >= OPEN_WIDTH && place.h >= OPEN_HEIGHT;
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
          const share = `${100 * parts.blob / (parts.blob + parts.tree)}%`;
          if (place.w > place.h) part.style.width = share; else part.style.height = share;
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
    const label = item.kind === 'image' && item.label.length * 7 > w - 60 ? item.label.slice(item.label.lastIndexOf('/') + 1) : item.label;
    const name = el('span', { class: 'name' }, el('bdi', { text: label }));
    if (w > 120 || (item.kind !== 'image' && w > 72 && h > 36)) name.append(' ', el('span', { class: 'size', text: bytes(item.size) }));
    return name;
  };
  const drawTrail = () => {
    const path = [root, ...state.trail];
    $('trail').replaceChildren(...path.map((item, i) => (i === path.length - 1
      ? el('span', { 'aria-current': 'location' }, el('bdi', { text: item.label }), ` ${bytes(item.size)}`)
      : el('button', { type: 'button', class: 'link', click: () => { state.trail = state.trail.slice(0, i); draw(); map.focus(); } }, el('bdi', { text: item.label })))));
  };

  // What is selected, related to it, found, and what would go: all are marks on boxes that stay where they are.

  const related = () => {
    const keys = new Set(), [kind, index] = [state.selected?.[0], Number(state.selected?.slice(1))];
    if (!nodes.has(state.selected)) return keys;
    if (nodes.get(state.selected).kind === 'layer') for (const image of users[index]) keys.add(`i${image}`);
    if (nodes.get(state.selected).kind === 'image') for (const layer of stacks[index]) keys.add(`l${layer}`);
    if (kind === 'c') images.forEach((image, i) => { if (image.containers.includes(containers[index]?.name)) keys.add(`i${i}`); });
    return keys;
  };
  const matches = (item) => {
    const has = (text) => text.toLowerCase().includes(state.query);
    if (item.kind === 'image') return [...images[item.index].names, images[item.index].id].some(has) || item.children.some(matches);
    if (item.kind === 'layer') return has(layers[item.index].diff_id) || has(layers[item.index].blob ?? '') || users[item.index].some((i) => images[i].names.some(has));
    return item.children.length > 0 ? item.children.some(matches) : has(item.label);
  };
  const mark = () => {
    const close = related();
    for (const { item, box } of views.values()) {
      const holds = (test) => test(item) || ((item.kind === 'more' || !box.classList.contains('open')) && item.children.some(test));
      const isSelected = item.key === state.selected || (item.kind === 'more' && item.children.some((child) => child.key === state.selected));
      const isRelated = holds((one) => close.has(one.key));
      const inSelected = item.parent !== null && item.parent.key === state.selected;
      const aroundIt = item.children.some((child) => child.key === state.selected || close.has(child.key));
      box.classList.toggle('selected', isSelected);
      box.classList.toggle('related', isRelated && !isSelected && !inSelected);
      box.classList.toggle('goes', goes(item));
      const isFar = state.selected !== null && close.size > 0 && !(isSelected || isRelated || inSelected || aroundIt || (item.parent && close.has(item.parent.key)));
      box.classList.toggle('far', isFar || (state.query !== '' && !matches(item)));
      box.setAttribute('aria-selected', isSelected);
      box.setAttribute('aria-label', seen(describe(item) + (isRelated && !isSelected ? ', belongs to the selection' : '')));
    }
    const view = viewOf(state.selected);
    if (view) map.setAttribute('aria-activedescendant', view.box.id); else map.removeAttribute('aria-activedescendant');
  };
  // The box of something, or the one that it is drawn as a part of.
  const viewOf = (key) => {
    if (views.has(key)) return views.get(key);
    const holds = (item) => item.children.some((child) => child.key === key);
    return [...views.values()].find(({ item }) => item.kind === 'more' && holds(item)) ?? [...views.values()].find(({ item }) => holds(item));
  };

  const select = (key, focus) => {
    state.selected = key;
    mark();
    drawPanel();
    for (const row of $('table').querySelectorAll('tr[data-key]')) row.setAttribute('aria-selected', row.dataset.key === key);
    if (focus === 'panel') $('panel').querySelector('h2').focus();
  };
  const open = (item) => {
    if (item.children.length === 0) { select(item.key, 'panel'); return; }
    state.trail.push(item);
    draw();
    const first = item.children[0].key;
    select(views.has(first) ? first : [...views.keys()][0] ?? null);
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
    let best = null, least = Infinity;
    for (const view of views.values()) {
      const to = view.rect;
      const gap = forward ? to[at] - (from[at] + from[length]) : from[at] - (to[at] + to[length]);
      if (view.level !== level || gap < -1.5) continue;
      const off = Math.max(to[across] - middle, middle - to[across] - to[width], 0);
      const cost = Math.max(gap, 0) + 2 * off;
      if (cost < least) { least = cost; best = view; }
    }
    return best;
  };
  map.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const view = viewOf(state.selected);
    const first = [...views.values()].filter(({ level }) => level === (view?.level ?? 1));
    let to = null;
    if (event.key.startsWith('Arrow')) to = view ? neighbour(view, event.key) ?? view : first[0];
    else if (event.key === 'Home') to = first[0];
    else if (event.key === 'End') to = first.at(-1);
    else if (event.key === 'Enter' || event.key === ' ') { if (view) open(view.item); } else if (event.key === 'Escape') up();
    else return;
    event.preventDefault();
    if (to) select(to.item.key);
  });
  const boxAt = (event) => views.get(event.target.closest('.box')?.dataset.key);
  map.addEventListener('click', (event) => { const view = boxAt(event); if (view) select(view.item.key); });
  map.addEventListener('dblclick', (event) => { const view = boxAt(event); if (view && view.item.children.length > 0) open(view.item); });
  map.addEventListener('focus', () => { if (state.selected === null) { const first = views.values().next().value; if (first) select(first.item.key); } });
  map.addEventListener('pointermove', (event) => { const view = boxAt(event); say('hint', view ? describe(view.item) : ''); });
  map.addEventListener('pointerleave', () => { say('hint', ''); });

  // The panel

  const link = (key, label, note) => el('li', {},
    el('button', { type: 'button', class: 'link', 'data-to': key, click: () => select(key, 'panel') }, el('bdi', { text: label })), el('span', { class: 'note', text: note }));
  const links = (heading, items) => {
    const list = el('ul', { class: 'links' }, ...items.slice(0, LINKS).map((item) => link(...item)));
    const rest = items.length - LINKS;
    if (rest > 0) {
      const more = el('li', {}, el('button', { type: 'button', class: 'link', text: `${rest.toLocaleString('en')} more`, click: () => { more.replaceWith(...items.slice(LINKS).map((item) => link(...item))); list.children[LINKS].firstChild.focus(); } }));
      list.append(more);
    }
    return [el('h3', { text: heading }), list];
  };
  const facts = (pairs) => el('dl', { class: 'facts' }, ...pairs.filter(([, value]) => value !== '' && value !== null)
    .map(([term, value, code]) => el('div', {}, el('dt', { text: term }), el('dd', {}, el(code ? 'code' : 'bdi', { text: value })))));
  const containersOf = (list) => containers.map(({ name, bytes: size }, i) => [`c${i}`, name, bytes(size)]).filter(([, name]) => list.some((i) => images[i].containers.includes(name)));
  const imageLinks = (list) => list.map((i) => [`i${i}`, nameOf(images[i]), ago(lastUse[i])]);

  const PANELS = {
    layer: ({ index }) => {
      const layer = layers[index], own = users[index];
      const standing = containersOf(own);
      return ['Layer', short(layer.diff_id), [
        facts([['Diff ID', layer.diff_id, true], ['Blob', layer.blob, true], ['Media type', layer.media, true],
          ['Blob on disk', layer.blob_bytes > 0 ? bytes(layer.blob_bytes) : 'not here'],
          ['Tree on disk', layer.tree_bytes > 0 ? `${bytes(layer.tree_bytes)} in ${count(layer.files, 'entry', 'entries')}` : 'not unpacked']]),
        ...(own.length > 0 ? links(own.length === 1 ? 'Only in' : `Shared by ${count(own.length, 'image')}`, imageLinks(own)) : [el('h3', { text: 'In no image' })]),
        ...(standing.length > 0 ? links(`${count(standing.length, 'container')} on these images`, standing) : []),
      ], `Layer ${short(layer.diff_id)}, ${bytes(sizeOf(layer))}, in ${count(own.length, 'image')}: ${own.slice(0, 5).map((i) => nameOf(images[i])).join(', ')}`];
    },
    image: ({ index }) => {
      const image = images[index];
      const uses = [image.pinned && 'pinned', image.mounted && 'mounted', image.containers.length > 0 && count(image.containers.length, 'container')].filter(Boolean);
      return ['Image', nameOf(image), [
        facts([['Other names', image.names.slice(1).join(', ')], ['ID', image.id, true], ['Platform', image.platform],
          ['Unique', bytes(unique[index])], ['Shared', bytes(shared[index])], ['Freed if removed', bytes(image.freed)],
          ['Last used', lastUse[index] === null ? 'never' : `${ago(lastUse[index])} (${date(lastUse[index])})`],
          ['Pulled', image.pulled === null ? '' : date(image.pulled)], ['Created', image.created === null ? '' : date(image.created)],
          ['In use', uses.join(', ') || 'no']]),
        ...(image.containers.length > 0 ? links('Containers', containersOf([index])) : []),
        ...links(count(stacks[index].length, 'layer'), stacks[index].map((i) => [`l${i}`, short(layers[i].diff_id), `${bytes(whole(layers[i]))}, ${users[i].length === 1 ? 'unique' : `in ${count(users[i].length, 'image')}`}`])),
      ], `Image ${nameOf(image)}: ${bytes(unique[index])} unique, ${bytes(shared[index])} shared, ${bytes(image.freed)} freed if removed`];
    },
    container: ({ index }) => {
      const { name, image, bytes: size } = containers[index];
      const own = images.map((_, i) => i).filter((i) => images[i].containers.includes(name));
      return ['Container', name, [facts([['Image', image], ['Writable layer', bytes(size)]]), ...links('Stands on', imageLinks(own))], `Container ${name}, ${bytes(size)}`];
    },
    garbage: ({ index }) => ['Garbage', garbage[index].what, [facts([['On disk', bytes(garbage[index].bytes)]]), el('p', { text: 'Nothing keeps this: the next collection removes it.' })], `Garbage: ${garbage[index].what}, ${bytes(garbage[index].bytes)}`],
    group: (item) => ['Group', item.label, [facts([['On disk', bytes(item.size)]]), ...links('In it', item.children.map((child) => [child.key, child.label, bytes(child.size)]))], describe(item)],
  };
  PANELS.more = PANELS.group;
  const drawPanel = () => {
    const item = nodes.get(state.selected);
    if (!item) {
      $('panel').replaceChildren(el('h2', { text: 'Selection', tabindex: -1 }), el('p', { class: 'quiet', text: 'Choose a box of the map or an image of the list: what it takes, who shares it and what removing it would free is shown here.' }));
      say('live', '');
      return;
    }
    const [kind, name, content, spoken] = PANELS[item.kind](item);
    $('panel').replaceChildren(el('h2', { tabindex: -1 }, el('span', { class: 'kind', text: kind }), ' ', el('bdi', { text: name })), ...content);
    $('panel').scrollTop = 0;
    say('live', spoken + (goes(item) ? ', would go' : ''));
  };
  $('panel').addEventListener('keydown', (event) => { if (event.key === 'Escape') { event.preventDefault(); map.focus(); } });

  // The list of images, which tells without a map what the map shows

  const COLUMNS = [
    ['name', 'Image', (i) => nameOf(images[i])], ['used', 'Last used', (i) => lastUse[i] ?? -Infinity], ['created', 'Created', (i) => images[i].created ?? -Infinity],
    ['unique', 'Unique', (i) => unique[i]], ['shared', 'Shared', (i) => shared[i]], ['freed', 'Freed', (i) => images[i].freed], ['containers', 'Containers', (i) => images[i].containers.length],
  ];
  const drawTable = () => {
    const by = COLUMNS.find(([key]) => key === state.sort)[2];
    const order = (a, b) => { const [x, y] = [by(a), by(b)]; return (x < y ? -1 : x > y ? 1 : a - b) * (state.up ? 1 : -1); };
    const has = (text) => text.toLowerCase().includes(state.query);
    const found = [...images.keys()].filter((i) => state.query === '' || [...images[i].names, images[i].id].some(has)).sort(order);
    const head = el('tr', {}, ...COLUMNS.map(([key, label]) => el('th', { scope: 'col', 'aria-sort': key === state.sort ? (state.up ? 'ascending' : 'descending') : undefined },
      el('button', { type: 'button', 'data-sort': key, text: label, click: () => { state.up = key === state.sort ? !state.up : key === 'name'; state.sort = key; drawTable(); $('table').querySelector(`[data-sort=${key}]`).focus(); } }))));
    const row = (i) => {
      const image = images[i];
      const marks = [state.policy >= 0 && going[state.policy].images.has(i) && 'would go', image.pinned && 'pinned', image.mounted && 'mounted'].filter(Boolean);
      const values = [ago(lastUse[i]), image.created === null ? '–' : ago(image.created), bytes(unique[i]), bytes(shared[i]), bytes(image.freed), String(image.containers.length)];
      return el('tr', { 'data-key': `i${i}`, 'aria-selected': state.selected === `i${i}` },
        el('th', { scope: 'row' }, el('button', { type: 'button', class: 'link', click: () => { select(`i${i}`); $('panel').scrollIntoView({ block: 'nearest' }); } }, el('bdi', { text: nameOf(image) })),
          ...marks.flatMap((text) => [' ', el('span', { class: 'badge', text })])), ...values.map((text) => el('td', { text })));
    };
    const shown = state.all ? found : found.slice(0, ROWS);
    $('table').replaceChildren(el('caption', { text: `${count(found.length, 'image')}${state.query === '' ? '' : ` of ${images.length.toLocaleString('en')}`}` }), el('thead', {}, head), el('tbody', {}, ...shown.map(row)));
    $('all').hidden = shown.length === found.length;
    say('all', `Show all ${found.length.toLocaleString('en')}`);
  };
  $('all').addEventListener('click', () => { state.all = true; drawTable(); });

  // What surrounds the map

  const most = policies.reduce((best, { freed }) => Math.max(best, freed), 0);
  const drawFigures = () => {
    const { total, available } = data.filesystem;
    const policy = policies[state.policy];
    const figure = (term, value, note) => el('div', {}, el('dt', { text: term }), el('dd', {}, el('b', { text: value }), el('span', { text: note })));
    $('figures').replaceChildren(
      figure('On disk', bytes(data.total.allocated), total > 0 ? `${percent(data.total.allocated, total)} of the filesystem` : ''),
      figure('Free on the filesystem', bytes(available), policy ? `${bytes(available + policy.freed)} then` : `of ${bytes(total)}`),
      figure('Images', images.length.toLocaleString('en'), policy ? `${(images.length - going[state.policy].images.size).toLocaleString('en')} then` : `${count(layers.length, 'layer')}, ${count(containers.length, 'container')}`),
      policy ? figure('Freed by this', bytes(policy.freed), policy.command) : figure('Could be freed', bytes(most), policies.length > 0 ? 'by what frees most, see below' : ''));
  };
  const drawHead = () => {
    document.title = seen(`Disk use of ${data.root}`);
    say('root', data.root);
    say('made', `as of ${date(data.made_at)}`);
    const all = sum(data.rows, (row) => row.allocated);
    data.rows.forEach((row, i) => {
      const part = el('span', { 'data-kind': i % 8 });
      part.style.flexGrow = all > 0 ? row.allocated / all : 0;
      if (row.allocated > 0) $('bar').append(part);
      $('kinds').append(el('li', { class: row.allocated > 0 ? '' : 'none' }, el('span', { class: 'swatch', 'data-kind': i % 8 }), el('bdi', { text: row.kind }), ' ', el('b', { text: bytes(row.allocated) }),
        el('span', { class: 'note', text: row.reclaimable > 0 ? `${bytes(row.reclaimable)} could go` : '' })));
    });
  };
  const radios = (into, name, choices, current, chosen) => into.append(...choices.map(([value, ...content]) => {
    const input = el('input', { type: 'radio', name, value, checked: value === current });
    input.addEventListener('change', () => chosen(value));
    return el('label', {}, input, ...content);
  }));
  const drawLegend = () => {
    const entry = (attributes, text) => el('li', {}, el('span', { class: 'swatch', ...attributes }), text);
    $('legend').replaceChildren(...LEGENDS[state.colour].map(([key, text]) => entry({ 'data-tone': key }, text)), entry({ 'data-tone': 'container' }, 'container'), entry({ 'data-tone': 'garbage' }, 'garbage'),
      ...(state.mode === 'disk' ? [entry({ class: 'swatch half' }, 'darker part: blob; rest: tree')] : []), ...(state.policy >= 0 ? [entry({ class: 'swatch goes' }, 'would go')] : []));
  };
  const choosePolicy = (i) => {
    state.policy = i;
    mark();
    drawFigures();
    drawTable();
    drawLegend();
    const policy = policies[i];
    say('live', policy ? `${policy.command}: ${bytes(policy.freed)} freed, ${count(policy.images.length, 'image')} would go` : 'no policy');
  };
  radios($('modes'), 'mode', [['disk', 'disk'], ['trees', 'trees'], ['blobs', 'blobs']], state.mode, (mode) => { state.mode = mode; draw(); drawPanel(); drawLegend(); });
  radios($('colours'), 'colour', [['age', 'last use'], ['sharing', 'sharing']], state.colour, (colour) => { state.colour = colour; draw(); drawLegend(); });
  radios($('policies'), 'policy', [[-1, el('span', { class: 'policy' }, el('span', { text: 'Nothing: only show' }))], ...policies.map((policy, i) => {
    const share = el('i');
    share.style.width = `${100 * policy.freed / Math.max(most, 1)}%`;
    return [i, el('span', { class: 'policy' }, el('code', { text: policy.command }), el('b', { text: bytes(policy.freed) }), el('span', { class: 'share' }, share),
      el('span', { class: 'note', text: [count(policy.images.length, 'image'), policy.note].filter(Boolean).join('; ') }))];
  })], state.policy, choosePolicy);

  $('search').addEventListener('input', (event) => { state.query = event.target.value.trim().toLowerCase(); mark(); drawTable(); });
  $('search').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || state.query === '') return;
    const shown = [...views.values()].map(({ item }) => item).filter(matches);
    const first = shown.find((item) => item.kind === 'image') ?? shown[0];
    if (first) { map.focus(); select(first.key); }
  });
  const THEMES = ['auto', 'light', 'dark'];
  $('theme').addEventListener('click', () => {
    const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? 'auto') + 1) % 3];
    document.documentElement.dataset.theme = theme;
    $('theme').textContent = `Theme: ${theme}`;
  });
  $('keys-button').addEventListener('click', () => $('keys').showModal());
  $('keys-close').addEventListener('click', () => $('keys').close());
  document.addEventListener('keydown', (event) => {
    if (event.target.matches('input[type=search]') || $('keys').open || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === '?') { event.preventDefault(); $('keys').showModal(); }
    if (event.key === '/') { event.preventDefault(); $('search').focus(); }
  });

  drawHead();
  drawFigures();
  drawLegend();
  drawPanel();
  drawTable();
  let width = 0, height = 0;
  new ResizeObserver(() => {
    if (map.clientWidth === width && map.clientHeight === height) return;
    [width, height] = [map.clientWidth, map.clientHeight];
    draw();
  }).observe(map);
})();
