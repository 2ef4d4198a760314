"use strict";

// The model: risk and reasons from the document of a glass box. `steps/models/served_model.py` describes the
// document and computes the same in Python; a browser test compares the two.
//
// BAND: standard deviations on either side within which 90 % of the models lie that are learned from other samples
// of people: 1.645, and 1.15 because both this model and the other move (benchmarks/person_band.py).
const BAND = 1.645 * 1.15;
const model = (terms) => {
  const { columns } = terms;
  const { slope, intercept } = terms.calibration ?? { slope: 1, intercept: 0 };
  const size = (column) => column.labels.length + 1;
  const bin = (column, value) => {
    if (value === null || value === undefined) return 0;
    if (column.kind === "levels") {
      const at = column.levels.indexOf(value);
      return at < 0 ? 0 : column.bins[at];
    }
    if (Number.isNaN(value) || column.missing.includes(value)) return 0;
    return 1 + column.cuts.filter((cut) => cut <= value).length;
  };
  const entry = (term, bins) =>
    term.columns.length === 1
      ? bins[term.columns[0]]
      : bins[term.columns[0]] * size(columns[term.columns[1]]) + bins[term.columns[1]];
  const sigmoid = (logOdds) => 1 / (1 + Math.exp(-logOdds));
  const baseline = slope * terms.intercept + intercept;

  // answers: {name: value or null}. Reasons in the order of the document's terms, `effect` in log odds.
  const compute = (answers) => {
    const bins = columns.map((column) => bin(column, answers[column.name] ?? null));
    let logOdds = baseline;
    let variance = terms.intercept_spread ** 2;
    const reasons = terms.terms.map((term) => {
      const at = entry(term, bins);
      const effect = slope * term.effects[at];
      logOdds += effect;
      variance += term.spread[at] ** 2;
      return { columns: term.columns, bins: term.columns.map((place) => bins[place]), effect, people: term.people[at] };
    });
    const margin = BAND * Math.abs(slope) * Math.sqrt(variance);
    return {
      risk: sigmoid(logOdds), low: sigmoid(logOdds - margin), high: sigmoid(logOdds + margin),
      baseline: sigmoid(baseline), logOdds, bins, reasons,
    };
  };
  return { compute, columns };
};

// The page. Every text is set as text, never as markup, so a name in a schema can hold anything.
const start = (page) => {
  const { words, questions } = page;
  const glassBox = page.terms ? model(page.terms) : null;
  const byId = (id) => document.getElementById(id);
  const say = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
  const element = (tag, attributes, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };
  const drawn = (tag, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const paragraph = (text, kind) => element("p", { class: kind }, text);
  const number = (value, digits) => value.toLocaleString(words.language, { maximumFractionDigits: digits });
  const hundred = (share) => {
    const value = 100 * share;
    return value > 0 && value < 1 ? "<1" : value > 99 && value < 100 ? ">99" : number(value, 0);
  };

  // ---- the form
  const answers = {};
  const problems = {};
  const fields = {};
  const legend = (question) =>
    element("legend", {}, question.ask, question.required ? ` (${words.required})` : "");
  const help = (question, id) => (question.help ? element("p", { class: "help", id }, question.help) : null);

  const levelField = (question, id) => {
    const options = [...question.levels, { value: null, label: words.not_asked }];
    const inputs = options.map((level, at) => {
      const input = element("input", { type: "radio", name: id, id: `${id}-${at}`, checked: level.value === null });
      input.addEventListener("change", () => { answers[question.name] = level.value; update(); });
      return { input, level };
    });
    fields[question.name] = {
      set: (value) => {
        const chosen = inputs.find(({ level }) => level.value === value) ?? inputs[inputs.length - 1];
        chosen.input.checked = true;
        answers[question.name] = chosen.level.value;
      },
    };
    const labels = inputs.map(({ input, level }) => element("label", { for: input.id }, input, level.label));
    return element(
      "fieldset", { "aria-describedby": question.help ? `${id}-help` : null },
      legend(question), help(question, `${id}-help`), element("div", { class: "choices" }, ...labels),
    );
  };

  const numberInput = (id, text, unit, minimum, maximum, step) => {
    const input = element("input", {
      type: "number", id, inputmode: step === "1" ? "numeric" : "decimal", min: minimum, max: maximum, step,
      "aria-describedby": `${id}-range ${id}-error`,
    });
    const range = element("span", { class: "range", id: `${id}-range` }, say(words.range, { minimum, maximum }));
    const label = element("label", { for: id }, text ? `${text} ` : "", input, unit ?? "");
    return { input, parts: [label, range] };
  };
  const read = (input, minimum, maximum) => {
    if (input.value === "" && !input.validity.badInput) return { value: null, problem: null };
    const value = Number(input.value);
    const fits = input.value !== "" && value >= minimum && value <= maximum;
    return fits ? { value, problem: null } : { value: null, problem: say(words.not_in_range, { minimum, maximum }) };
  };
  const BODY = { height: [words.height, words.centimetres, 100, 250], weight: [words.weight, words.kilograms, 25, 350] };

  const numberField = (question, id) => {
    const unasked = element("input", { type: "checkbox", id: `${id}-unasked`, checked: true });
    const error = element("p", { class: "error", id: `${id}-error` });
    const shown = element("span", { class: "range" });
    const built = question.from ?? [];
    const made = built.length
      ? built.map((part) => numberInput(`${id}-${part}`, BODY[part][0], BODY[part][1], BODY[part][2], BODY[part][3], "any"))
      : [numberInput(id, "", question.unit, question.minimum, question.maximum, question.whole ? "1" : "any")];
    const inputs = made.map(({ input }) => input);
    inputs.forEach((input) => input.setAttribute("aria-describedby", `${input.id}-range ${id}-error`));
    const take = () => {
      const limits = built.length ? built.map((part) => BODY[part].slice(2)) : [[question.minimum, question.maximum]];
      const results = inputs.map((input, at) => read(input, ...limits[at]));
      inputs.forEach((input, at) => input.setAttribute("aria-invalid", String(results[at].problem !== null)));
      let problem = results.map((result) => result.problem).find((one) => one !== null) ?? null;
      let value = null;
      if (problem === null && results.every((result) => result.value !== null)) {
        value = results[0].value;
        if (built.length) {
          const [height, weight] = ["height", "weight"].map((part) => results[built.indexOf(part)].value);
          value = weight / (height / 100) ** 2;
        }
        if (question.whole) value = built.length ? Math.round(value) : value;
        if (question.whole && !Number.isInteger(value)) problem = words.whole;
        else if (value < question.minimum || value > question.maximum) problem = say(words.not_in_range, question);
      }
      answers[question.name] = problem === null ? value : null;
      problems[question.name] = problem;
      error.textContent = problem ?? "";
      const computed = built.length && answers[question.name] !== null;
      shown.textContent = computed ? say(words.computed, { name: question.short, value: number(value, 1) }) : "";
      unasked.checked = inputs.every((input) => input.value === "" && !input.validity.badInput);
    };
    inputs.forEach((input) => input.addEventListener("input", () => { take(); update(); }));
    unasked.addEventListener("change", () => {
      if (unasked.checked) inputs.forEach((input) => { input.value = ""; });
      take();
      update();
      if (!unasked.checked) inputs[0].focus();
    });
    fields[question.name] = {
      set: (value) => {
        inputs.forEach((input) => { input.value = ""; });
        if (value !== null && built.length) {
          inputs[built.indexOf("height")].value = "170";
          inputs[built.indexOf("weight")].value = String(Math.round(value * 1.7 ** 2 * 10) / 10);
        } else if (value !== null) inputs[0].value = String(value);
        take();
      },
    };
    return element(
      "fieldset", { "aria-describedby": question.help ? `${id}-help` : null },
      legend(question), help(question, `${id}-help`),
      element(
        "div", { class: "number" }, ...made.flatMap(({ parts }) => parts), shown,
        element("label", { for: unasked.id }, unasked, words.not_asked), error,
      ),
    );
  };

  const drawForm = () => {
    let group = null;
    questions.forEach((question, at) => {
      if (question.group !== group) {
        group = question.group;
        if (group) byId("questions").append(element("h3", {}, group));
      }
      answers[question.name] = null;
      const field = question.kind === "levels" ? levelField : numberField;
      byId("questions").append(field(question, `q${at}`));
    });
  };

  // ---- the answer
  const nameOf = Object.fromEntries(questions.map((question) => [question.name, question.short]));
  const labelOf = (place, at) => {
    const column = glassBox.columns[place];
    return at ? column.labels[at - 1] : words.no_answer;
  };
  const answered = (place, at) => `${nameOf[glassBox.columns[place].name]}: ${labelOf(place, at)}`;

  const figure = (risk) => {
    const filled = Math.round(100 * risk);
    const people = [...Array(100).keys()].map((at) => {
      const [x, y] = [(at % 20) * 12 + 6, Math.floor(at / 20) * 20];
      return drawn("path", {
        class: at < filled ? "with" : "without",
        d: `M${x} ${y + 2}a2.6 2.6 0 1 1 -0.01 0M${x - 4} ${y + 18}v-7a2.4 2.4 0 0 1 2.4 -2.4h3.2a2.4 2.4 0 0 1 2.4 2.4v7z`,
      });
    });
    const label = say(words.picture, { count: filled });
    return drawn("svg", { class: "people", viewBox: "0 0 242 100", role: "img", "aria-label": label }, ...people);
  };

  const compared = () => {
    const value = answers[page.compare?.column] ?? null;
    const fits = (group) =>
      group.values ? group.values.includes(value)
        : value >= (group.minimum ?? -Infinity) && value <= (group.maximum ?? Infinity);
    const breadth = (group) => (group.values ? group.values.length : group.maximum - group.minimum || Infinity);
    const [group] = value === null ? [] : page.compare.groups.filter(fits).sort((a, b) => breadth(a) - breadth(b));
    return group
      ? paragraph(say(words.compare, { group: group.name, count: hundred(group.share), outcome: page.outcome }))
      : null;
  };

  const decision = (risk) => {
    const above = risk >= page.threshold;
    const values = {
      threshold: number(100 * page.threshold, 1), outcome: page.outcome,
      have: hundred(above ? page.flagged_have : page.unflagged_have),
      have_not: hundred(1 - page.flagged_have),
    };
    return paragraph(say(above ? words.threshold_above : words.threshold_below, values), above ? "flagged" : "unflagged");
  };

  const cautions = (result) => {
    const listed = (names) => names.join("; ");
    const open = questions.filter((question) => answers[question.name] === null).map((question) => question.short);
    const unknown = glassBox.columns
      .filter((column, place) => answers[column.name] !== null && result.bins[place] === 0)
      .map((column) => nameOf[column.name]);
    const singles = result.reasons.filter((reason) => reason.columns.length === 1 && reason.bins[0]);
    const pairs = result.reasons.filter((reason) => reason.columns.length === 2 && reason.bins.every(Boolean));
    const text = (reason) => reason.columns.map((place, at) => answered(place, reason.bins[at])).join(" + ");
    const isFew = (count) => count === null || count <= 10;
    const nobody = pairs.filter((reason) => reason.people === 0);
    const fewPairs = pairs.filter((reason) => reason.people !== 0 && isFew(reason.people));
    const few = singles.filter((reason) => isFew(reason.people));
    return [
      open.length ? paragraph(say(words.missing, { names: listed(open) }), "warning") : null,
      unknown.length ? paragraph(say(words.unknown, { names: listed(unknown) }), "warning") : null,
      few.length ? paragraph(say(words.few, { names: listed(few.map(text)) }), "warning") : null,
      nobody.length ? paragraph(say(words.nobody_pair, { names: listed(nobody.map(text)) }), "warning") : null,
      fewPairs.length ? paragraph(say(words.few_pair, { names: listed(fewPairs.map(text)) }), "warning") : null,
    ];
  };

  const standing = (count) =>
    count === null ? words.not_shown : count === 0 ? words.nobody
      : count <= 10 ? words.few_people : say(words.about_people, { count: number(count, 0) });

  const reasonRow = (reason, largest) => {
    const [first, second] = reason.columns.map((place, at) => answered(place, reason.bins[at]));
    const name = second === undefined ? first : say(words.together, { first, second });
    const factor = number(Math.exp(reason.effect), 2);
    const isMore = reason.effect > 0;
    const width = 50 * Math.abs(reason.effect) / largest;
    const bar = drawn(
      "svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("rect", { class: isMore ? "more" : "less", x: isMore ? 50 : 50 - width, y: 1, width, height: 8 }),
      drawn("line", { x1: 50, x2: 50, y1: 0, y2: 10 }),
    );
    const effect = Math.abs(reason.effect) < 0.005 ? words.neutral : say(isMore ? words.raises : words.lowers, { factor });
    return element(
      "tr", {}, element("th", { scope: "row" }, name), element("td", { class: "bar" }, bar, element("small", {}, effect)),
      element("td", {}, reason.bins.every(Boolean) ? standing(reason.people) : ""),
    );
  };

  const table = (rows) => {
    const head = [words.reason, words.effect, words.people].map((text) => element("th", { scope: "col" }, text));
    return element("div", { class: "scroll" }, element(
      "table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows),
    ));
  };

  const othersRow = (others) => {
    const effect = others.reduce((sum, reason) => sum + reason.effect, 0);
    const text = say(effect > 0 ? words.raises : words.lowers, { factor: number(Math.exp(effect), 2) });
    const name = say(words.others_together, { count: others.length });
    return element(
      "tr", { class: "others" }, element("th", { scope: "row" }, name),
      element("td", { class: "bar" }, element("small", {}, text)), element("td", {}),
    );
  };

  const MOST_REASONS = 12;
  const reasonTable = (result) => {
    const sorted = [...result.reasons].sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect));
    const largest = Math.max(1e-9, ...sorted.map((reason) => Math.abs(reason.effect)));
    const rows = sorted.map((reason) => reasonRow(reason, largest));
    const others = sorted.slice(MOST_REASONS);
    return [
      element("h3", {}, words.reasons),
      paragraph(say(words.reasons_lead, { baseline: number(100 * result.baseline, 1) })),
      table([...rows.slice(0, MOST_REASONS), ...(others.length ? [othersRow(others)] : [])]),
      others.length
        ? element(
          "details", {}, element("summary", {}, say(words.others, { count: others.length })),
          table(rows.slice(MOST_REASONS)),
        )
        : null,
    ];
  };

  const given = (question) => {
    const value = answers[question.name];
    if (value === null) return words.no_answer;
    const level = question.levels?.find((one) => one.value === value);
    return level ? level.label : `${number(value, 1)} ${question.unit ?? ""}`;
  };
  const answerList = () => element(
    "div", { class: "answers" }, element("h3", {}, words.your_answers),
    ...questions.map((question) => paragraph(`${question.short}: ${given(question)}`)),
  );

  const show = (status, ...parts) => {
    byId("status").replaceChildren(...[].concat(status));
    byId("detail").replaceChildren(...parts.filter((part) => part !== null));
  };

  const showRisk = (result) => {
    const { risk } = result;
    const sentence = risk < 0.01 ? words.risk_below_one : risk > 0.99 ? words.risk_above : words.risk;
    const print = element("button", { type: "button", class: "no-print" }, words.print);
    print.addEventListener("click", () => window.print());
    const band = result.low === undefined ? null
      : paragraph(say(words.band, { low: number(100 * result.low, 1), high: number(100 * result.high, 1) }));
    show(
      paragraph(say(sentence, { count: number(100 * risk, 0), outcome: page.outcome }), "big"),
      figure(risk), band, compared(), decision(risk),
      ...(result.reasons ? cautions(result) : []),
      ...(result.reasons ? reasonTable(result) : [paragraph(words.no_reasons)]),
      answerList(), element("p", { class: "buttons" }, print),
    );
  };

  const showOpen = (open) => {
    const required = questions.filter((question) => question.required && answers[question.name] === null);
    const names = required.map((question) => question.short).join("; ");
    const text = required.length
      ? say(words.needed, { most: page.most_open, required: names })
      : say(words.needed_any, { most: page.most_open });
    show([paragraph(text), paragraph(open === 1 ? words.open_one : say(words.open, { count: open }))]);
  };

  let asked = 0;
  const ask = async () => {
    asked += 1;
    const number = asked;
    const names = questions.map((question) => question.name);
    const body = { dataframe_split: { columns: names, data: [names.map((name) => answers[name])] } };
    show(paragraph(words.asking));
    try {
      const reply = await fetch("invocations", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      });
      const risk = (await reply.json()).predictions[0][1];
      if (number === asked && Number.isFinite(risk)) showRisk({ risk });
    } catch {
      if (number === asked) show(paragraph(words.server_failed, "warning"));
    }
  };

  const update = () => {
    const open = questions.filter((question) => answers[question.name] === null);
    if (open.length > page.most_open || open.some((question) => question.required)) showOpen(open.length);
    else if (glassBox) showRisk(glassBox.compute(answers));
    else if (window.location.protocol === "file:") show(paragraph(words.asks_server, "warning"));
    else ask();
  };

  const fill = (values) => {
    questions.forEach((question) => fields[question.name].set(values[question.name] ?? null));
    update();
  };
  drawForm();
  byId("example").addEventListener("click", () => fill(page.example));
  byId("clear").addEventListener("click", () => fill({}));
  byId("form").addEventListener("submit", (event) => event.preventDefault());
  byId("card").replaceChildren(
    window.location.protocol === "file:"
      ? element("a", { href: "model_card.md" }, words.card_link) : words.card_elsewhere,
  );
  update();
};

const page = JSON.parse(document.getElementById("page").textContent);
globalThis.riskPage = { model, page };
start(page);
