// Texts that are shown with less contrast than 4.5 (WCAG 2.2, 1.4.3), each with what it has.
(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  // Any colour of CSS as red, green, blue, each up to 255, and alpha up to 1.
  const parse = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const luminance = (colour) => {
    const [r, g, b] = colour
      .slice(0, 3)
      .map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  // What an element stands on; in a box also what its darker part makes of that.
  const grounds = (element) => {
    const layers = [];
    let shade = null;
    for (let at = element; at; at = at.parentElement) {
      const ground = parse(getComputedStyle(at).backgroundColor);
      const blob = [...at.children].find((child) => child.matches('.blob') && !child.contains(element));
      if (blob && layers.every((layer) => layer[3] < 1))
        shade = { at: layers.length, colour: parse(getComputedStyle(blob).backgroundColor) };
      layers.push(ground);
    }
    const flat = (list) => list.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
    const all = [flat(layers)];
    if (shade) all.push(flat([...layers.slice(0, shade.at), shade.colour, ...layers.slice(shade.at)]));
    return all;
  };
  const bad = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (
      node.data.trim() === '' ||
      element.closest('script, style, .unseen, .skip, noscript') ||
      element.getClientRects().length === 0
    )
      continue;
    const ink = parse(getComputedStyle(element).color);
    const least = Math.min(...grounds(element).map((ground) => contrast(over(ink, ground), ground)));
    seen += 1;
    if (least < 4.5) bad.push(`${node.data.trim()}: ${least.toFixed(2)}`);
  }
  return { seen, bad };
})();
