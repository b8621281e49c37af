// Says in sentences what keeps people from reading or using this page. Each rule is one of WCAG's, as far as a script can tell.

const complaints = [];
const complain = (element, what) => {
  const name = element.id ? `#${element.id}` : element.outerHTML.slice(0, 80);
  complaints.push(`${name}: ${what}`);
};
const all = (selector) => [...document.querySelectorAll(selector)];
const isSeen = (element) => element.checkVisibility() && element.getBoundingClientRect().width > 0;

// 1.4.10: nothing is read by scrolling in two directions.
if (document.documentElement.scrollWidth > window.innerWidth) {
  complaints.push(`scrolls sideways: ${document.documentElement.scrollWidth} px wide, ${window.innerWidth} px shown`);
}

// 3.1.1, 2.4.2, 1.3.1: a language, a title, one main part, one first heading, and no level left out.
if (!document.documentElement.lang || !document.title || all("main").length !== 1) {
  complaints.push("no language, no title, or not one main part");
}
const levels = all("h1, h2, h3, h4, h5, h6").map((heading) => Number(heading.tagName[1]));
if (levels.filter((level) => level === 1).length !== 1 || levels.some((level, place) => level > (levels[place - 1] ?? 0) + 1)) {
  complaints.push(`headings have the levels ${levels}`);
}

// 4.1.1: a name is one element's.
const ids = all("[id]").map((element) => element.id);
for (const id of new Set(ids.filter((id, place) => ids.indexOf(id) !== place))) {
  complaints.push(`#${id} is there more than once`);
}
for (const element of all("[aria-labelledby], output[for]")) {
  const named = (element.getAttribute("aria-labelledby") ?? element.getAttribute("for")).split(" ");
  if (named.some((id) => !document.getElementById(id))) {
    complain(element, "refers to what is not there");
  }
}

// 1.1.1, 4.1.2: what is no text says what it is, and so does what can be used.
for (const picture of all("img:not([alt]), svg:not([role=img][aria-label]), meter:not([aria-label])")) {
  complain(picture, "has no words");
}
for (const control of all("input, select, textarea")) {
  if (![...control.labels].some((label) => isSeen(label) && label.innerText.trim())) {
    complain(control, "has no label");
  }
}
for (const control of all("a, button")) {
  if (!control.innerText.trim()) {
    complain(control, "has no name");
  }
}
for (const table of all("table")) {
  if (!table.querySelector("thead th[scope=col]") || !table.querySelector("tbody th[scope=row]")) {
    complain(table, "has no heads");
  }
}

// 2.5.8: what can be used can be hit.
for (const control of all("a, button, input, select")) {
  const { width, height } = control.getBoundingClientRect();
  if (isSeen(control) && (width < 24 || height < 24)) {
    complain(control, `is ${width} by ${height} px small`);
  }
}

// 1.4.3: text stands out against what is behind it. 1.4.11: so do lines of charts, and edges of what can be used.
const channels = (color) => color.match(/[\d.]+/g).map(Number);
const luminance = (color) => {
  const [red, green, blue] = channels(color).map((channel) => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const contrast = (one, other) => {
  const [darker, lighter] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (lighter + 0.05) / (darker + 0.05);
};
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = getComputedStyle(each).backgroundColor;
    if ((channels(color)[3] ?? 1) > 0) {
      return color;
    }
  }
  return "rgb(255, 255, 255)";
};
const mustStandOut = (element, color, from, least) => {
  const found = contrast(color, from);
  if (found < least) {
    complain(element, `stands out by ${found.toFixed(2)}, not ${least}: ${color} on ${from}`);
  }
};
for (const element of all("body *")) {
  const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (hasText && isSeen(element)) {
    const { color, fill } = getComputedStyle(element);
    mustStandOut(element, element.ownerSVGElement ? fill : color, behind(element), 4.5);
  }
}
for (const element of all(".line")) {
  mustStandOut(element, getComputedStyle(element).stroke, behind(element.ownerSVGElement), 3);
}
for (const element of all(".area")) {
  mustStandOut(element, getComputedStyle(element).fill, behind(element.ownerSVGElement), 3);
}
for (const element of all("input, select, button")) {
  const { borderColor } = getComputedStyle(element);
  mustStandOut(element, borderColor, behind(element.parentElement), 3);
}

return complaints;
