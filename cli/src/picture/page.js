// What surrounds the map.

// The panel

const link = (key, label, note) =>
  el(
    'li',
    {},
    el(
      'button',
      { type: 'button', class: 'link', 'data-to': key, click: () => select(key, 'panel') },
      el('bdi', { text: label }),
    ),
    el('span', { class: 'note', text: note }),
  );
const links = (heading, items) => {
  const list = el('ul', { class: 'links' }, ...items.slice(0, LINKS).map((item) => link(...item)));
  const rest = items.length - LINKS;
  if (rest > 0) {
    const more = el(
      'li',
      {},
      el('button', {
        type: 'button',
        class: 'link',
        text: `${rest.toLocaleString('en')} more`,
        click: () => {
          more.replaceWith(...items.slice(LINKS).map((item) => link(...item)));
          list.children[LINKS].firstChild.focus();
        },
      }),
    );
    list.append(more);
  }
  return [el('h3', { text: heading }), list];
};
const facts = (pairs) =>
  el(
    'dl',
    { class: 'facts' },
    ...pairs
      .filter(([, value]) => value !== '' && value !== null)
      .map(([term, value, code]) =>
        el('div', {}, el('dt', { text: term }), el('dd', {}, el(code ? 'code' : 'bdi', { text: value }))),
      ),
  );
const containersOf = (list) =>
  containers
    .map(({ name, used, bytes: size }, i) => [`c${i}`, name, `${bytes(size)}${used === '' ? '' : ', in use'}`])
    .filter(([, name]) => list.some((i) => images[i].containers.includes(name)));
const imageLinks = (list) => list.map((i) => [`i${i}`, nameOf(images[i]), ago(lastUse[i])]);

const PANELS = {
  layer: ({ index }) => {
    const layer = layers[index],
      own = users[index];
    const standing = containersOf(own);
    return [
      'Layer',
      short(layer.diff_id),
      [
        facts([
          ['Diff ID', layer.diff_id, true],
          ['Blob', layer.blob, true],
          ['Media type', layer.media, true],
          ['Blob on disk', layer.blob_bytes > 0 ? bytes(layer.blob_bytes) : 'not here'],
          [
            'Tree on disk',
            layer.tree_bytes > 0
              ? `${bytes(layer.tree_bytes)} in ${count(layer.files, 'entry', 'entries')}`
              : 'not unpacked',
          ],
        ]),
        ...(own.length > 0
          ? links(own.length === 1 ? 'Only in' : `Shared by ${count(own.length, 'image')}`, imageLinks(own))
          : [el('h3', { text: 'In no image' })]),
        ...(standing.length > 0 ? links(`${count(standing.length, 'container')} on these images`, standing) : []),
      ],
      `Layer ${short(layer.diff_id)}, ${bytes(sizeOf(layer))}, in ${count(own.length, 'image')}: ${own
        .slice(0, 5)
        .map((i) => nameOf(images[i]))
        .join(', ')}`,
    ];
  },
  image: ({ index }) => {
    const image = images[index];
    const uses = [
      image.pinned && 'pinned',
      image.mounted && 'mounted',
      image.containers.length > 0 && count(image.containers.length, 'container'),
    ].filter(Boolean);
    return [
      'Image',
      nameOf(image),
      [
        facts([
          ['Other names', image.names.slice(1).join(', ')],
          ['ID', image.id, true],
          ['Platform', image.platform],
          ['Unique', bytes(unique[index])],
          ['Shared', bytes(shared[index])],
          ['Freed if removed', bytes(image.freed)],
          ['Last used', lastUse[index] === null ? 'never' : `${ago(lastUse[index])} (${date(lastUse[index])})`],
          ['Pulled', image.pulled === null ? '' : date(image.pulled)],
          ['Created', image.created === null ? '' : date(image.created)],
          ['In use', uses.join(', ') || 'no'],
        ]),
        ...(image.containers.length > 0 ? links('Containers', containersOf([index])) : []),
        ...links(
          count(stacks[index].length, 'layer'),
          stacks[index].map((i) => [
            `l${i}`,
            short(layers[i].diff_id),
            `${bytes(whole(layers[i]))}, ${users[i].length === 1 ? 'unique' : `in ${count(users[i].length, 'image')}`}`,
          ]),
        ),
      ],
      `Image ${nameOf(image)}: ${bytes(unique[index])} unique, ${bytes(shared[index])} shared, ` +
        `${bytes(image.freed)} freed if removed`,
    ];
  },
  container: ({ index }) => {
    const { name, image, used, bytes: size } = containers[index];
    const own = images.map((_, i) => i).filter((i) => images[i].containers.includes(name));
    return [
      'Container',
      name,
      [
        facts([
          ['Image', image],
          ['Writable layer', bytes(size)],
          ['In use', used || 'no'],
        ]),
        ...links('Stands on', imageLinks(own)),
      ],
      `Container ${name}, ${bytes(size)}${used === '' ? '' : ', in use'}`,
    ];
  },
  garbage: ({ index }) => [
    'Garbage',
    garbage[index].what,
    [
      facts([['On disk', bytes(garbage[index].bytes)]]),
      el('p', { text: 'Nothing keeps this: the next collection removes it.' }),
    ],
    `Garbage: ${garbage[index].what}, ${bytes(garbage[index].bytes)}`,
  ],
  group: (item) => [
    'Group',
    item.label,
    [
      facts([['On disk', bytes(item.size)]]),
      ...links(
        'In it',
        item.children.map((child) => [child.key, child.label, bytes(child.size)]),
      ),
    ],
    describe(item),
  ],
};
PANELS.more = PANELS.group;
const drawPanel = () => {
  const item = nodes.get(state.selected);
  if (!item) {
    $('panel').replaceChildren(
      el('h2', { text: 'Selection', tabindex: -1 }),
      el('p', {
        class: 'quiet',
        text: 'Choose a box of the map or an image of the list to see what it takes, who shares it, and what removing it would free.',
      }),
    );
    say('live', '');
    return;
  }
  const [kind, name, content, spoken] = PANELS[item.kind](item);
  $('panel').replaceChildren(
    el('h2', { tabindex: -1 }, el('span', { class: 'kind', text: kind }), ' ', el('bdi', { text: name })),
    ...content,
  );
  if (item.children.length > 0 && item !== state.trail.at(-1))
    $('panel').append(
      el('button', {
        type: 'button',
        class: 'open-it',
        text: 'Open in the map',
        click: () => {
          open(item);
          map.focus();
        },
      }),
    );
  say('live', spoken + (goes(item) ? ', would go' : ''));
};
$('panel').addEventListener('keydown', (event) => {
  if (event.key === 'Escape') {
    event.preventDefault();
    map.focus();
  }
});

// The list of images, which tells without a map what the map shows

const COLUMNS = [
  ['name', 'Image', (i) => nameOf(images[i])],
  ['used', 'Last used', (i) => lastUse[i] ?? -Infinity],
  ['created', 'Created', (i) => images[i].created ?? -Infinity],
  ['unique', 'Unique', (i) => unique[i]],
  ['shared', 'Shared', (i) => shared[i]],
  ['freed', 'Freed', (i) => images[i].freed],
  ['containers', 'Containers', (i) => images[i].containers.length],
];
const drawTable = () => {
  const by = COLUMNS.find(([key]) => key === state.sort)[2];
  const order = (a, b) => {
    const [x, y] = [by(a), by(b)];
    return (x < y ? -1 : x > y ? 1 : a - b) * (state.up ? 1 : -1);
  };
  const has = (text) => text.toLowerCase().includes(state.query);
  const found = [...images.keys()]
    .filter((i) => state.query === '' || [...images[i].names, images[i].id].some(has))
    .sort(order);
  const head = el(
    'tr',
    {},
    ...COLUMNS.map(([key, label]) =>
      el(
        'th',
        { scope: 'col', 'aria-sort': key === state.sort ? (state.up ? 'ascending' : 'descending') : undefined },
        el('button', {
          type: 'button',
          'data-sort': key,
          text: label,
          click: () => {
            state.up = key === state.sort ? !state.up : key === 'name';
            state.sort = key;
            drawTable();
            $('table').querySelector(`[data-sort=${key}]`).focus();
          },
        }),
      ),
    ),
  );
  const row = (i) => {
    const image = images[i];
    const marks = [
      state.policy >= 0 && going[state.policy].images.has(i) && 'would go',
      image.pinned && 'pinned',
      image.mounted && 'mounted',
    ].filter(Boolean);
    const values = [
      ago(lastUse[i]),
      image.created === null ? '–' : ago(image.created),
      bytes(unique[i]),
      bytes(shared[i]),
      bytes(image.freed),
      String(image.containers.length),
    ];
    return el(
      'tr',
      { 'data-key': `i${i}`, 'aria-selected': state.selected === `i${i}` },
      el(
        'th',
        { scope: 'row' },
        el(
          'button',
          {
            type: 'button',
            class: 'link',
            click: () => {
              select(`i${i}`);
              $('panel').scrollIntoView({ block: 'nearest' });
            },
          },
          el('bdi', { text: nameOf(image) }),
        ),
        ...marks.flatMap((text) => [' ', el('span', { class: 'badge', text })]),
      ),
      ...values.map((text) => el('td', { text })),
    );
  };
  const shown = state.all ? found : found.slice(0, ROWS);
  $('table').replaceChildren(
    el('caption', {
      text: `${count(found.length, 'image')}${state.query === '' ? '' : ` of ${images.length.toLocaleString('en')}`}`,
    }),
    el('thead', {}, head),
    el('tbody', {}, ...shown.map(row)),
  );
  $('all').hidden = shown.length === found.length;
  say('all', `Show all ${found.length.toLocaleString('en')}`);
};
$('all').addEventListener('click', () => {
  state.all = true;
  drawTable();
});

// What surrounds the map

const most = policies.reduce((best, { freed }) => Math.max(best, freed), 0);
const drawFigures = () => {
  const { total, available } = data.filesystem;
  const policy = policies[state.policy];
  const figure = (term, value, note) =>
    el('div', {}, el('dt', { text: term }), el('dd', {}, el('b', { text: value }), el('span', { text: note })));
  $('figures').replaceChildren(
    figure(
      'On disk',
      bytes(data.total.allocated),
      total > 0 ? `${percent(data.total.allocated, total)} of the filesystem` : '',
    ),
    figure(
      'Free on the filesystem',
      bytes(available),
      policy ? `${bytes(available + policy.freed)} then` : `of ${bytes(total)}`,
    ),
    figure(
      'Images',
      images.length.toLocaleString('en'),
      policy
        ? `${(images.length - going[state.policy].images.size).toLocaleString('en')} then`
        : `${count(layers.length, 'layer')}, ${count(containers.length, 'container')}`,
    ),
    policy
      ? figure('Freed by this', bytes(policy.freed), policy.command)
      : figure('Could be freed', bytes(most), policies.length > 0 ? 'by what frees most, see below' : ''),
  );
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
    $('kinds').append(
      el(
        'li',
        { class: row.allocated > 0 ? '' : 'none' },
        el('span', { class: 'swatch', 'data-kind': i % 8 }),
        el('bdi', { text: row.kind }),
        ' ',
        el('b', { text: bytes(row.allocated) }),
        el('span', { class: 'note', text: row.reclaimable > 0 ? `${bytes(row.reclaimable)} could go` : '' }),
      ),
    );
  });
};
const radios = (into, name, choices, current, chosen) =>
  into.append(
    ...choices.map(([value, ...content]) => {
      const input = el('input', { type: 'radio', name, value, checked: value === current });
      input.addEventListener('change', () => chosen(value));
      return el('label', {}, input, ...content);
    }),
  );
const drawLegend = () => {
  const entry = (attributes, text) => el('li', {}, el('span', { class: 'swatch', ...attributes }), text);
  $('legend').replaceChildren(
    ...LEGENDS[state.colour].map(([key, text]) => entry({ 'data-tone': key }, text)),
    entry({ 'data-tone': 'container' }, 'container'),
    entry({ 'data-tone': 'garbage' }, 'garbage'),
    ...(state.mode === 'disk' ? [entry({ class: 'swatch half' }, 'darker part: blob; rest: tree')] : []),
    ...(state.policy >= 0 ? [entry({ class: 'swatch goes' }, 'would go')] : []),
  );
};
const choosePolicy = (i) => {
  state.policy = i;
  mark();
  drawFigures();
  drawTable();
  drawLegend();
  const policy = policies[i];
  say(
    'live',
    policy
      ? `${policy.command}: ${bytes(policy.freed)} freed, ${count(policy.images.length, 'image')} would go`
      : 'no policy',
  );
};
radios(
  $('modes'),
  'mode',
  [
    ['disk', 'disk'],
    ['trees', 'trees'],
    ['blobs', 'blobs'],
  ],
  state.mode,
  (mode) => {
    state.mode = mode;
    draw();
    drawPanel();
    drawLegend();
  },
);
radios(
  $('colours'),
  'colour',
  [
    ['age', 'last use'],
    ['sharing', 'sharing'],
  ],
  state.colour,
  (colour) => {
    state.colour = colour;
    draw();
    drawLegend();
  },
);
radios(
  $('policies'),
  'policy',
  [
    [-1, el('span', { class: 'policy' }, el('span', { text: 'Nothing: only show' }))],
    ...policies.map((policy, i) => {
      const share = el('i');
      share.style.width = `${(100 * policy.freed) / Math.max(most, 1)}%`;
      return [
        i,
        el(
          'span',
          { class: 'policy' },
          el('code', { text: policy.command }),
          el('b', { text: bytes(policy.freed) }),
          el('span', { class: 'share' }, share),
          el('span', {
            class: 'note',
            text: [count(policy.images.length, 'image'), policy.note].filter(Boolean).join('; '),
          }),
        ),
      ];
    }),
  ],
  state.policy,
  choosePolicy,
);

$('search').addEventListener('input', (event) => {
  state.query = event.target.value.trim().toLowerCase();
  mark();
  drawTable();
});
$('search').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || state.query === '') return;
  const shown = [...views.values()].map(({ item }) => item).filter(matches);
  const first = shown.find((item) => item.kind === 'image') ?? shown[0];
  if (first) {
    map.focus();
    select(first.key);
  }
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
  if (event.target.matches('input[type=search]') || $('keys').open || event.ctrlKey || event.altKey || event.metaKey)
    return;
  if (event.key === '?') {
    event.preventDefault();
    $('keys').showModal();
  }
  if (event.key === '/') {
    event.preventDefault();
    $('search').focus();
  }
});

drawHead();
drawFigures();
drawLegend();
drawPanel();
drawTable();
let width = 0,
  height = 0;
new ResizeObserver(() => {
  if (map.clientWidth === width && map.clientHeight === height) return;
  [width, height] = [map.clientWidth, map.clientHeight];
  draw();
}).observe(map);
