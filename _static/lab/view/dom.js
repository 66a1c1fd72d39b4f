// Making elements.

/** An element: `on` holds listeners, `style` custom properties, null and false are left out. */
export function h(tag, { on = {}, style = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  return furnish(element, on, style, attributes, children);
}

/** The same in SVG. */
export function svg(tag, { on = {}, style = {}, ...attributes } = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return furnish(element, on, style, attributes, children);
}

function furnish(element, on, style, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) attribute(element, name, value);
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Set an attribute; null and false remove it. */
export function attribute(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : value);
}

/** Change a text, and only if it is another one: live regions speak what changes. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let names = 0;

/** A new id. */
export const newId = () => `lab-${++names}`;

/** A select or a group of radio buttons: a label, and what can be chosen, [value, text] each. */
export function select(label, options, change) {
  const id = newId();
  const control = h("select", { id, on: { change: () => change(control.value) } });
  const offer = (list) => {
    const wanted = list.map(([value, text]) => `${value}\t${text}`).join("\n");
    if (control.dataset.offered === wanted) return;
    control.dataset.offered = wanted;
    control.replaceChildren(...list.map(([value, text]) => h("option", { value }, text)));
  };
  offer(options);
  const element = h("div", { class: "lab-field" }, h("label", { for: id }, label), control);
  return { element, control, offer };
}

export function radios(legend, options, change) {
  const name = newId();
  const inputs = options.map(([value, text, swatch = null]) => {
    const input = h("input", { type: "radio", name, value, on: { change: () => change(value) } });
    return h("label", { class: "lab-radio" }, input, swatch, h("span", {}, text));
  });
  const element = h("fieldset", { class: "lab-radios" }, h("legend", {}, legend), ...inputs);
  const choose = (value) => {
    for (const input of element.querySelectorAll("input")) input.checked = input.value === value;
  };
  return { element, choose };
}
