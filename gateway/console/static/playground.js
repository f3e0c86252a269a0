// The playground: asks several versions at once, writes their answers as they come, and keeps the vote. Text only ever
// becomes text: nothing that a model says is read as HTML.
"use strict";
(() => {
  const form = document.getElementById("play");
  const place = document.getElementById("answers");
  const status = document.getElementById("play-status");
  const stop = document.getElementById("stop");
  if (!form) return;
  const most = Number(form.dataset.most);
  let running = null;

  const boxes = () => [...form.querySelectorAll("input[name=version]")];

  // More than fit cannot be chosen.
  form.addEventListener("change", () => {
    const full = boxes().filter((box) => box.checked).length >= most;
    for (const box of boxes()) box.disabled = full && !box.checked;
  });

  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = boxes().filter((box) => box.checked).map((box) => ({ model: box.value, label: box.dataset.label }));
    if (!chosen.length) return say("Choose at least one version.", true);
    play(chosen, new FormData(form));
  });

  stop.addEventListener("click", () => running?.abort());

  function say(text, wrong = false) {
    status.textContent = text;
    status.className = wrong ? "wrong" : "muted";
  }

  async function play(chosen, fields) {
    running?.abort();
    const mine = running = new AbortController();
    const blind = fields.get("blind") === "yes" && chosen.length > 1;
    if (blind) shuffle(chosen);
    const nonce = random(16);
    place.replaceChildren();
    const panels = chosen.map((one, at) => panel(one, "ABCD"[at], blind));
    stop.disabled = false;
    say(`Asking ${chosen.length === 1 ? "one version" : `${chosen.length} versions`}…`);
    await Promise.all(panels.map((one) => ask(one, fields, mine.signal)));
    if (running !== mine) return;
    stop.disabled = true;
    const whole = panels.filter((one) => one.id);
    say(whole.length === panels.length ? "All answers are in." : "Not every answer came to its end.");
    if (whole.length > 1 && form.dataset.metric) offer(whole, nonce);
    else if (blind) panels.forEach(reveal);
  }

  function panel(one, letter, blind) {
    const card = make("section", "card"), title = make("h2", "", blind ? `Answer ${letter}` : one.label);
    title.id = `answer-${letter}`;
    card.setAttribute("aria-labelledby", title.id);
    card.setAttribute("aria-busy", "true");
    const text = make("div", "text"), told = make("p", "muted", "Waiting…"), buttons = make("p", "buttons");
    card.append(title, text, told, buttons);
    place.append(card);
    return { ...one, letter, card, title, text, told, buttons, id: null };
  }

  async function ask(one, fields, signal) {
    const body = new URLSearchParams();
    for (const name of ["system", "prompt", "temperature", "max_tokens"]) body.set(name, fields.get(name));
    body.set("version", one.model);
    const began = performance.now();
    try {
      const reply = await fetch(form.dataset.answer, {
        method: "POST", body, signal, redirect: "error", headers: { "x-csrf-token": form.dataset.token },
      });
      if (!reply.ok || !(reply.headers.get("content-type") || "").includes("ndjson")) {
        throw new Error("The gateway did not take the question. Check the fields, or reload the page.");
      }
      for await (const line of lines(reply.body)) {
        if (line.text) {
          one.first ??= performance.now() - began;
          one.text.append(line.text);
          one.told.textContent = "Answering…";
        }
        if (line.error) throw new Error(line.error);
        if (line.done) finish(one, line.done, performance.now() - began);
      }
      if (!one.id && !signal.aborted) throw new Error("The answer broke off.");
    } catch (error) {
      one.told.textContent = signal.aborted ? "Stopped." : error instanceof TypeError ? "The gateway cannot be reached." : error.message;
      one.told.className = signal.aborted ? "muted" : "wrong";
    }
    one.card.removeAttribute("aria-busy");
  }

  function finish(one, done, took) {
    one.id = done.id;
    const parts = [`${Math.round(one.first ?? took)} ms to the first token`, `${Math.round(took)} ms in all`];
    if (done.tokens !== null) parts.push(`${done.tokens} tokens`);
    if (done.finish === "length") parts.push("cut at the most tokens");
    one.told.textContent = parts.join(" · ");
  }

  async function* lines(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const found = (rest + value).split("\n");
      rest = found.pop();
      for (const line of found) if (line) yield JSON.parse(line);
    }
  }

  function offer(panels, nonce) {
    for (const one of panels) {
      const button = make("button", "primary", `${one.letter} is best`);
      button.type = "button";
      button.addEventListener("click", () => vote(one, panels, nonce));
      one.buttons.append(button);
    }
    const none = make("button", "quiet", "No difference");
    none.type = "button";
    none.addEventListener("click", () => { end(panels); say("Nothing was kept."); });
    panels.at(-1).buttons.append(none);
  }

  async function vote(winner, panels, nonce) {
    const body = new URLSearchParams({
      winner: winner.id, losers: panels.filter((one) => one !== winner).map((one) => one.id).join(","),
      metric: form.dataset.metric, nonce,
    });
    for (const one of panels) for (const button of one.buttons.children) button.disabled = true;
    let told;
    try {
      const reply = await fetch(form.dataset.vote, {
        method: "POST", body, redirect: "error", headers: { "x-csrf-token": form.dataset.token },
      });
      told = await reply.json();
    } catch {
      told = { error: "The vote could not be kept. Reload the page and try again." };
    }
    if (told.error) {
      for (const one of panels) for (const button of one.buttons.children) button.disabled = false;
      return say(told.error, true);
    }
    end(panels);
    winner.title.append(" ", make("span", "badge good", "best"));
    say(`Kept: ${winner.label} is better than ${panels.filter((one) => one !== winner).map((one) => one.label).join(", ")}.`);
  }

  function end(panels) {
    for (const one of panels) {
      one.buttons.replaceChildren();
      reveal(one);
    }
  }

  function reveal(one) {
    one.title.textContent = one.label;
  }

  function make(name, kind, text = "") {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    made.textContent = text;
    return made;
  }

  function shuffle(list) {
    for (let i = list.length - 1; i > 0; i--) {
      const j = crypto.getRandomValues(new Uint32Array(1))[0] % (i + 1);
      [list[i], list[j]] = [list[j], list[i]];
    }
  }

  function random(bytes) {
    return [...crypto.getRandomValues(new Uint8Array(bytes))].map((one) => one.toString(16).padStart(2, "0")).join("");
  }
})();
