// A clip goes to the server as it is; lines of JSON come back: what is being done, then everything
// there is to show. The film is the clock: the crop, the words, the sound and the strips follow it.
const $ = id => document.getElementById(id);
const make = (name, properties = {}, ...inside) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...inside);
  return element;
};
const percent = share => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

const limits = await (await fetch("models")).json();
let clip = null; // the latest one, as { data, name }
let sent = null; // stops the request under way
let shown = null; // the result on the page
let recording = null;

// Giving a clip

for (const [number, model] of limits.models.entries()) {
  $("model").append(new Option(model.name, number));
}
const chosen = () => limits.models[$("model").value];

function describe() {
  const model = chosen();
  const does = model.task === "lip" ? `reads ${model.words} words` : "makes speech";
  const memory = model.slots ? `memory of ${model.slots} slots` : "no memory";
  $("facts").textContent = `${does} (${model.corpus}); ${memory}`;
  $("known").textContent = `This model ${model.known}.`;
}

function refuse(text) {
  $("busy").hidden = true;
  $("work").hidden = $("error").hidden = false;
  $("error").textContent = text;
}

async function give(data, name) {
  clip = { data, name };
  sent?.abort();
  const stop = sent = new AbortController();
  forget();
  $("work").hidden = $("busy").hidden = false;
  $("error").hidden = true;
  $("clip").textContent = name;
  if (data.size > limits.max_bytes) {
    return refuse(`${(data.size / 1e6).toFixed(0)} MB: larger than ${limits.max_bytes / 1e6} MB (avb ui --max-mb)`);
  }
  const model = chosen();
  const began = performance.now();
  let doing = "Sending";
  const tick = () => {
    $("doing").textContent = `${doing} (${((performance.now() - began) / 1000).toFixed(0)} s)`;
  };
  const timer = setInterval(tick, 250);
  tick();
  try {
    const query = new URLSearchParams({ model: $("model").value, box: $("box").value, face: $("face").value });
    let last = {};
    for await (const event of ask(`read?${query}`, data, stop.signal)) {
      last = event;
      doing = event.doing ?? doing;
      tick();
    }
    if (stop.signal.aborted) return;
    if (last.result) await show(last.result, model, (performance.now() - began) / 1000);
    else refuse(last.error ?? "the server went away; is avb ui still running?");
  } catch (problem) {
    if (!stop.signal.aborted) refuse(problem.message);
  } finally {
    clearInterval(timer);
    if (sent === stop) $("busy").hidden = true;
  }
}

async function* ask(address, body, signal) {
  const headers = { "Content-Type": "application/octet-stream" };
  const answer = await fetch(address, { method: "POST", body, signal, headers });
  if (!answer.ok) throw new Error(await answer.text());
  if (!answer.body) return; // of a 204 there is none: Chromium gives an empty one all the same
  let held = "";
  for await (const text of chunks(answer.body.pipeThrough(new TextDecoderStream()))) {
    const lines = (held + text).split("\n");
    held = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

async function* chunks(stream) { // not every browser iterates over streams
  const reader = stream.getReader();
  for (let part; !(part = await reader.read()).done;) yield part.value;
}

// The camera

async function openCamera() {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: true })
      .catch(() => navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } }));
    recording = { stream };
  } catch (problem) {
    $("clip").textContent = "Camera";
    return refuse(`cannot be used: ${problem.message}`);
  }
  $("preview").srcObject = recording.stream;
  $("preview").play();
  $("work").hidden = $("drop").hidden = true;
  $("recorder").hidden = false;
  $("record").textContent = "Record";
  $("clock").textContent = $("heard").textContent = "";
  $("live").hidden = !chosen().sentences;
}

function closeCamera() {
  recording?.live?.end();
  clearInterval(recording?.timer);
  recording?.stream.getTracks().forEach(track => track.stop());
  recording = null;
  $("drop").hidden = false;
  $("recorder").hidden = true;
}

function record() {
  if (recording.recorder) return recording.recorder.stop();
  const recorder = recording.recorder = new MediaRecorder(recording.stream);
  const parts = [];
  const began = performance.now();
  recorder.ondataavailable = event => parts.push(event.data);
  recorder.onstop = () => {
    if (!recording) return; // cancelled
    closeCamera();
    give(new Blob(parts), "Recording");
  };
  recorder.start();
  $("record").textContent = "Stop";
  recording.timer = setInterval(() => {
    const seconds = (performance.now() - began) / 1000;
    $("clock").textContent = `${seconds.toFixed(1)} s`;
    if (seconds > limits.max_seconds - 1) recorder.stop();
  }, 100);
}

// The camera, read while it is seen: luma goes to the server, a word a line comes back.

const LIVE = { width: 320, height: 240, together: 3, rate: 25 };

async function live() {
  if (recording.live) return recording.live.end();
  const { width, height, together, rate } = LIVE;
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const query = new URLSearchParams({ model: $("model").value, face: $("face").value, width, height });
  const stop = new AbortController();
  const held = []; // luma of pictures that are not sent yet
  let name = null, taken = 0, sending = false, began = 0;
  const send = pictures => ask(`live/${name}`, new Blob(pictures), stop.signal).next();
  const look = async () => {
    // As many as there should be by now: timers are late, and a picture may stand for two.
    for (const due = Math.floor((performance.now() - began) / 1000 * rate); taken < due; taken += 1) {
      canvas.drawImage($("preview"), 0, 0, width, height);
      const { data } = canvas.getImageData(0, 0, width, height);
      held.push(Uint8Array.from({ length: width * height }, (_, i) =>
        0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]));
    }
    if (sending || held.length < together) return;
    sending = true;
    await send(held.splice(0)).catch(() => recording?.live?.end());
    sending = false;
  };
  recording.live = { end: () => { clearInterval(recording.timer); if (name) send([]).catch(() => {}); else stop.abort(); } };
  $("heard").textContent = "";
  $("live").textContent = "Stop";
  $("record").hidden = true;
  try {
    for await (const event of ask(`live?${query}`, null, stop.signal)) {
      if (event.error) throw new Error(event.error);
      name = event.live ?? name;
      if (event.doing) {
        began = performance.now();
        recording.timer = setInterval(look, 1000 / rate);
      }
      if (event.word) $("heard").append(make("span", { title: percent(event.confidence) }, `${event.word} `));
    }
  } catch (problem) {
    if (!stop.signal.aborted) $("heard").append(` ${problem.message}`);
  } finally {
    stop.abort();
    clearInterval(recording?.timer);
    if (recording) recording.live = null;
    $("live").textContent = "Read live";
    $("record").hidden = false;
  }
}

// The result

const blob = async (data, type) => URL.createObjectURL(await (await fetch(`data:${type};base64,${data}`)).blob());

function forget() {
  $("result").hidden = true;
  $("film").pause();
  for (const sound of Object.values(shown?.sounds ?? {})) sound.pause();
  for (const address of shown?.addresses ?? []) URL.revokeObjectURL(address);
  shown = null;
}

async function show(result, model, took) {
  const film = await blob(result.film, "video/mp4");
  const sheet = make("img", { src: result.crops.picture });
  await sheet.decode();
  shown = { ...result, sheet, sounds: {}, addresses: [film], hears: null };
  for (const [title, data] of Object.entries(result.sounds)) {
    const address = await blob(data, "audio/wav");
    shown.addresses.push(address);
    shown.sounds[title] = make("audio", { src: address });
  }
  $("film").src = film;
  $("place").max = result.seconds;
  $("crop").width = $("crop").height = result.crops.side;
  $("size").textContent = `(${result.crops.side} x ${result.crops.side} pixels)`;
  $("about").textContent = about(result, took);
  $("hear").replaceChildren($("hear").firstElementChild, ...choicesOfSound());
  $("words").hidden = $("windows").hidden = model.task !== "lip";
  showTracks(result, model);
  showWindows(result.windows ?? []);
  $("work").hidden = true;
  $("result").hidden = false;
  follow();
}

function about(result, took) {
  const spans = result.absent.map(([from, to]) => `${from.toFixed(1)} to ${to.toFixed(1)} s`);
  return [
    `${clip.name}: ${result.seconds.toFixed(2)} s, box ${result.box}`,
    result.turned ? `turned by ${result.turned} degrees` : "",
    result.faces > 1 ? `${result.faces} faces (another one: Options, face)` : "",
    spans.length ? `nobody is seen from ${spans.join(", ")}` : "",
    `done in ${took.toFixed(1)} s`,
  ].filter(Boolean).join("; ");
}

function choicesOfSound() {
  const titles = Object.keys(shown.sounds);
  $("hear").hidden = !titles.length;
  return [...titles, "Nothing"].map((title, number) => {
    const radio = make("input", { type: "radio", name: "sound", checked: !number });
    radio.onchange = () => hear(title);
    if (!number) hear(title);
    const row = make("label", {}, radio, ` ${title}`, shown.sounds[title] ?? "");
    if (title === "From the lips") {
      row.append(" ", make("a", { href: shown.sounds[title].src, download: "speech.wav", textContent: "save" }));
    }
    return row;
  });
}

function hear(title) {
  shown.hears?.pause();
  shown.hears = shown.sounds[title] ?? null;
  keepTime();
}

function keepTime() { // the sound starts, stops and jumps as the film does
  const film = $("film"), sound = shown?.hears;
  $("play").textContent = film.paused || film.ended ? "Play" : "Pause";
  if (!sound) return;
  sound.currentTime = film.currentTime;
  if (film.paused || film.seeking || film.ended) sound.pause();
  else sound.play();
}

function showTracks(result, model) {
  const seconds = result.seconds;
  const rows = Object.entries(result.mels).map(([title, picture]) =>
    track(title, ["mel, 80 dB, low bins at the bottom"], strip(picture)));
  if (result.slots) {
    const { count, top, picture } = result.slots;
    rows.push(track("Memory slots", [
      `A_src, slot 0 at the bottom, ${count - 1} at the top`,
      make("span", { className: "scale" }),
      make("span", { className: "ends" }, make("span", { textContent: "0" }), make("span", { textContent: top.toFixed(2) })),
    ], strip(picture, "slots")));
  } else {
    rows.push(track("Memory slots", [], make("div", {
      textContent: model.slots ? "Nobody was seen for long enough to address any."
        : "This model has no memory (0 slots): there is nothing to address.",
    })));
  }
  const axis = make("div", { className: "strip axis" });
  const step = [0.2, 0.5, 1, 2, 5, 10, 20, 60].find(size => seconds / size <= 8) ?? 300;
  for (let time = 0; time < seconds - step / 4; time += step) {
    const tick = make("span", { textContent: `${+time.toFixed(1)} s` });
    tick.style.left = `${100 * time / seconds}%`;
    axis.append(tick);
  }
  $("tracks").replaceChildren(...rows.flat(), make("div"), axis);
  for (const place of $("tracks").querySelectorAll(".strip")) {
    place.onpointerdown = place.onpointermove = event => {
      if (!event.buttons) return;
      const { left, width } = place.getBoundingClientRect();
      $("film").currentTime = Math.max(0, Math.min(1, (event.clientX - left) / width)) * seconds;
    };
  }
}

const strip = (picture, kind = "") => make("div", { className: `strip ${kind}` },
  make("img", { src: picture, alt: "", draggable: false }));

const track = (title, told, shown) => [
  make("div", { className: "title" }, make("strong", { textContent: title }), make("br"), ...told),
  shown,
];

// As often right without looking.
const guessed = words => words.length && words[0].probability < chosen().floor;

function showWindows(windows) {
  $("windows").hidden ||= windows.length < 2;
  $("words").firstElementChild.textContent = "No word was read";
  $("words").lastElementChild.replaceChildren();
  $("windows").lastElementChild.replaceChildren(...windows.map(({ start, end, words }) => {
    const [first, ...others] = words.map(({ word, probability }) => `${word} ${percent(probability)}`);
    const row = make("button", { type: "button" }, `${start.toFixed(2)} to ${end.toFixed(2)} s`, make("span", {},
      guessed(words) ? "a guess: " : "", make("em", { textContent: first ?? "nobody is seen" }), others.length ? `, ${others.join(", ")}` : ""));
    row.onclick = () => { $("film").currentTime = (start + end) / 2; };
    return make("li", {}, row);
  }));
}

// What belongs to the picture that is shown now

function follow() {
  if (!shown) return;
  const { seconds, fps, crops, slots, windows, sheet } = shown;
  const time = Math.min($("film").currentTime, seconds);
  const frame = Math.min(Math.floor(time * fps + 0.01), Math.round(seconds * fps) - 1);
  const { side, columns } = crops;
  const [x, y] = [frame % columns * side, Math.floor(frame / columns) * side];
  $("crop").getContext("2d").drawImage(sheet, x, y, side, side, 0, 0, side, side);
  $("tracks").style.setProperty("--at", time / seconds);
  $("place").value = time;
  $("slots").textContent = slots
    ? `At ${time.toFixed(2)} s: ${slots.best[frame].map(([slot, weight]) => `slot ${slot} ${percent(weight)}`).join(", ")}`
    : "";
  if (windows?.length) showWords(windows, time);
}

function showWords(windows, time) {
  const middle = ({ start, end }) => Math.abs((start + end) / 2 - time);
  const now = windows.reduce((best, one, number) => middle(one) < middle(windows[best]) ? number : best, 0);
  if (shown.now === now) return;
  shown.now = now;
  const { start, end, words } = windows[now];
  $("words").firstElementChild.textContent = `Read from ${start.toFixed(2)} to ${end.toFixed(2)} s${guessed(words) ? ", a guess" : ""}`;
  $("words").lastElementChild.replaceChildren(...words.map(({ word, probability }) => {
    const row = make("li", {}, make("span", { textContent: word }), make("span", { textContent: percent(probability) }));
    row.style.setProperty("--share", probability);
    return row;
  }));
  const list = $("windows").lastElementChild;
  list.querySelector(".on")?.classList.remove("on");
  const row = list.children[now];
  row.classList.add("on");
  list.scrollTop = row.offsetTop - list.offsetTop - list.clientHeight / 2;
}

function everyFrame() {
  follow();
  if (!$("film").paused) requestAnimationFrame(everyFrame);
}

// Wiring

describe();
for (const name of ["model", "box", "face"]) {
  $(name).onchange = () => { describe(); if (clip) give(clip.data, clip.name); };
}
$("limits").textContent = `Up to ${limits.max_seconds} s and ${limits.max_bytes / 1e6} MB, any format that ffmpeg reads.`;
$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) give(file, file.name);
  $("file").value = ""; // so that the same one can be chosen again
};
// Anywhere on the page: beside the field, the browser would open the clip in place of the page.
document.ondragover = event => { event.preventDefault(); $("drop").classList.add("over"); };
document.ondragleave = event => { if (!event.relatedTarget) $("drop").classList.remove("over"); };
document.ondrop = event => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) give(file, file.name);
};
if (!navigator.mediaDevices) { // browsers give cameras to pages of this machine, or over https, alone
  $("camera").disabled = true;
  $("camera").title = "Only where the page is opened on the machine that runs avb";
}
$("camera").onclick = openCamera;
$("sample").onclick = async () => {
  const answer = await fetch("sample");
  if (answer.ok) return give(await answer.blob(), "Drawn talker");
  refuse(await answer.text());
};
$("record").onclick = record;
$("live").onclick = live;
$("leave").onclick = closeCamera;
$("stop").onclick = () => { sent.abort(); $("work").hidden = true; };
$("play").onclick = $("film").onclick = () => $("film").paused ? $("film").play() : $("film").pause();
$("place").oninput = () => { $("film").currentTime = $("place").value; };
$("film").onplay = () => { keepTime(); everyFrame(); };
$("film").onseeked = () => { keepTime(); follow(); };
for (const event of ["pause", "seeking", "ended"]) $("film").addEventListener(event, keepTime);
$("film").ontimeupdate = follow;
