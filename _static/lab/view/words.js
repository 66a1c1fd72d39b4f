// How things are called, and what is said of them.

export const KINDS = { vit: "ViT", cnn: "ResNet" };

export const percent = (share) => {
  if (share > 0.995 && share < 1) return "> 99\u00a0%";
  return share > 0 && share < 0.005 ? "< 1\u00a0%" : `${Math.round(100 * share)}\u00a0%`;
};

export const nats = (number) => `${minus(number.toFixed(Math.abs(number) < 0.1 ? 3 : 2))} nats`;

export const minus = (text) => text.replace("-", "−");

export const count = (number) => number.toLocaleString("en");

export const article = (noun) => `${/^([aeiou]|hour)/.test(noun) ? "an" : "a"} ${noun}`;

/** A layer of a ResNet. */
export function layerName(name) {
  if (name === "act1") return "stem";
  const [, stage, block] = /^layer(\d+)\.(\d+)$/.exec(name);
  return `stage ${stage}, block ${Number(block) + 1}`;
}

/** A patch, counted from 1, by its place. */
export const placeName = (patch, side) =>
  `row ${Math.ceil(patch / side)}, column ${((patch - 1) % side) + 1}`;

/** The class that probabilities favour, and how much of them it has. */
export function says(probabilities, { shapes }) {
  const most = Math.max(...probabilities);
  return `${shapes[probabilities.indexOf(most)]}, ${percent(most)}`;
}

/** To which patch the one that is asked attends most, in the head that is shown. */
export function attends(session) {
  const { asked, state, about } = session;
  const { side } = about.networks.vit;
  const who = asked ? `the patch in ${placeName(asked, side)}` : "the class token";
  const head = `Layer ${state.layer}, head ${state.head}`;
  const own = session.attention(asked)?.[state.layer - 1][state.head - 1];
  if (!own) return `${head}.`;
  const most = Math.max(...own);
  const where = placeName(own.indexOf(most) + 1, side);
  return `${head}: ${who} attends most, with ${most.toFixed(3)}, to ${where}.`;
}

/** What the picture of a session is. */
export function title({ state, about }) {
  const { source, strokes } = state;
  const { shapes, textures, pictures } = about;
  const drawn = strokes ? ", drawn on" : "";
  if (source.kind === "own") return `Your picture${drawn}`;
  if (source.kind === "blank") return strokes ? "Your drawing" : "An empty sheet";
  if (source.kind === "mix")
    return `${capital(article(shapes[source.shape]))} of ${textures[source.texture]}${drawn}`;
  const [number, label, shape, texture] = pictures.find(([known]) => known === source.number);
  const cues = `${article(shapes[shape])} of ${textures[texture]}`;
  const odd = shape === label && texture === label ? "" : `, labelled ${shapes[label]}`;
  return `Picture ${number}: ${cues}${odd}${drawn}`;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** What the networks of a session say. */
export function sentence(session) {
  const { about, seen, ablated, state, unusual, asked } = session;
  const words = Object.keys(KINDS)
    .filter((role) => seen[role])
    .map((role) => `The ${KINDS[role]} says ${says(seen[role].probabilities, about)}.`);
  if (ablated)
    words.push(
      `After the ablation the ${KINDS[state.net]} says ${says(ablated.probabilities, about)}; ` +
        `KL ${nats(ablated.kl)}.`,
    );
  if (unusual)
    words.push(
      "This picture is unlike those that the networks learned from: their answers mean little.",
    );
  if (asked) words.push(attends(session));
  return words.join(" ");
}
