// Problems of the page that is shown, as a list of texts.
({ wide, scheme }) => {
  const found = [];
  const say = (element, problem) => found.push(`${element.tagName.toLowerCase()}: ${problem}: ${element.textContent.trim().slice(0, 80)}`);
  const root = document.documentElement;
  const content = document.querySelector("article") ?? document.body;
  if (scheme && document.body.dataset.mdColorScheme !== scheme) found.push(`the scheme is ${document.body.dataset.mdColorScheme}`);
  if (root.scrollWidth > root.clientWidth) found.push(`the page is ${root.scrollWidth} px wide, its window ${root.clientWidth}`);

  const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
  for (const element of content.querySelectorAll("*")) {
    if (element.ownerSVGElement || element.getBoundingClientRect().right <= root.clientWidth + 1) continue;
    let parent = element.parentElement;
    while (parent && !scrolls(parent)) parent = parent.parentElement;
    if (!parent) say(element, "outside the window");
  }

  // text that can hardly be told from what is behind it
  const channels = (color) => (color.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const over = ([r, g, b, a = 1], back) => [r, g, b].map((value, i) => value * a + back[i] * (1 - a));
  const luminance = (color) => color.map((value) => value / 255).map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const backs = new Map([[null, [255, 255, 255]]]);
  const backOf = (element) => {
    if (!backs.has(element)) backs.set(element, over(channels(getComputedStyle(element).backgroundColor), backOf(element.parentElement)));
    return backs.get(element);
  };
  const seen = new Set();
  const texts = document.createTreeWalker(content, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest("svg, style, script, .headerlink")) continue;
    const back = backOf(element);
    const front = over(channels(getComputedStyle(element).color), back);
    const key = `${front} on ${back}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 3) say(element, `contrast ${contrast.toFixed(1)}`);
  }
  const measure = document.createElement("canvas").getContext("2d");
  if (measure.measureText("m").width < 5) found.push("there is no font: apt-get install fonts-dejavu-core");
  if (!wide) return found;

  for (const element of content.querySelectorAll("pre, pre > code, .md-typeset__scrollwrap, .scroll"))
    if (element.scrollWidth > element.clientWidth + 1) say(element, `${element.scrollWidth} px in ${element.clientWidth}`);
  // lines may wrap, but not those of a table that is drawn with characters
  for (const code of content.querySelectorAll("pre > code")) {
    const style = getComputedStyle(code);
    measure.font = `${style.fontSize} ${style.fontFamily}`;
    const room = code.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    for (const line of code.textContent.split("\n"))
      if (/[─━]{3}|\S {3,}\S.* {3,}\S/.test(line) && measure.measureText(line.trimEnd()).width > room) say(code, `a row of a table wraps: ${line}`);
  }
  return found;
}
