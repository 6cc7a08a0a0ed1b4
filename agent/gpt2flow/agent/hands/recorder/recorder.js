// Reports what a person does on a page.
// Each press is held until the recorder has named the element, and presses it itself.
(() => {
  if (window.gpt2flowRecorder) return;

  const PRESSED_ROLES = [
    "button", "checkbox", "combobox", "gridcell", "link", "menuitem", "menuitemcheckbox",
    "menuitemradio", "option", "radio", "slider", "switch", "tab", "treeitem",
  ];
  const PRESSED =
    "a[href], area[href], button, input, summary, [onclick], " +
    PRESSED_ROLES.map((role) => `[role=${role}]`).join(", ");
  const NOT_TYPED = [
    "button", "checkbox", "file", "image", "radio", "range", "reset", "submit",
  ];
  const SECRET = /password|one-time-code/;

  const elements = new Map();
  const secrets = new WeakMap();
  const released = new WeakSet();
  // Unlike those of any earlier page.
  let count = Math.floor(performance.timeOrigin * 1000);
  let typed = null;
  let passing = null;
  let isEntering = false;

  const path = (event) => event.composedPath().filter((each) => each instanceof Element);

  const isField = (element) =>
    element.matches("textarea, select") ||
    (element.matches("input") && !NOT_TYPED.includes(element.type)) ||
    element.isContentEditable;

  // The field that an event is about; of rich text, the outermost element.
  const field = (event) => {
    const [target] = path(event);
    if (!target || !isField(target)) return null;
    let outer = target;
    while (outer.isContentEditable && outer.parentElement?.isContentEditable) {
      outer = outer.parentElement;
    }
    return outer;
  };

  // A password that is shown as text stays a secret.
  const noteSecret = (element) => {
    const hint = `${element.type} ${element.getAttribute("autocomplete")}`;
    const found = hint.match(SECRET);
    if (found && !secrets.has(element)) secrets.set(element, found[0]);
  };

  const describe = (element) => {
    const own = element.matches("input, textarea, select")
      ? element.getAttribute("name") || ""
      : element.innerText || "";
    const short = own.trim().replace(/\s+/g, " ").slice(0, 40);
    return `<${element.localName}>` + (short ? ` '${short}'` : "");
  };

  const report = (kind, element, { text = null, isHeld = false } = {}) => {
    count += 1;
    elements.set(count, element);
    const secret = secrets.get(element) || null;
    window.gpt2flowReport({ kind, number: count, what: describe(element), text, secret, isHeld });
  };

  const reportTyped = (element, isHeld) => {
    typed = null;
    const text = element.isContentEditable ? element.innerText : element.value;
    report("fill", element, { text, isHeld });
  };

  const flush = () => {
    if (typed) reportTyped(typed, false);
  };

  const hold = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  const pressed = (event) => {
    const elements = path(event);
    const control = elements.find((each) => each.matches(PRESSED) || isField(each));
    const label = elements.find((each) => each.matches("label"));
    if (label?.control && !(control && label.contains(control))) return null;
    if (control) return isField(control) ? null : control;
    return getComputedStyle(elements[0]).cursor === "pointer" ? elements[0] : null;
  };

  const onInput = (event) => {
    const element = field(event);
    if (!element || element.matches("select")) return;
    noteSecret(element);
    typed = element;
  };

  const onChange = (event) => {
    const element = field(event);
    if (!element || released.has(event)) return;
    noteSecret(element);
    hold(event);
    if (typed !== element) flush();
    if (element.matches("select")) {
      const text = element.selectedOptions[0]?.innerText ?? "";
      report("choose", element, { text, isHeld: true });
    } else {
      reportTyped(element, true);
    }
  };

  const onClick = (event) => {
    if (!event.isTrusted) return;
    if (passing && event.composedPath().includes(passing)) {
      passing = null;
      return;
    }
    const control = pressed(event);
    if (!control) return;
    hold(event);
    // The second click of a double click.
    if (event.detail > 1) return;
    flush();
    report(control.matches("input[type=file]") ? "file" : "press", control);
  };

  const onKey = (event) => {
    if (event.key !== "Enter") return;
    isEntering = true;
    setTimeout(() => { isEntering = false; }, 0);
  };

  const onSubmit = (event) => {
    if (event.submitter || !isEntering) return;
    hold(event);
    flush();
    report("enter", event.target);
  };

  for (const [name, listener] of [
    ["input", onInput], ["change", onChange], ["focusout", flush], ["click", onClick],
    ["keydown", onKey], ["submit", onSubmit],
  ]) {
    window.addEventListener(name, listener, true);
  }

  window.gpt2flowRecorder = {
    element: (number) => elements.get(Number(number)) ?? null,
    // The next click on the element is the recorder's own.
    pass: (number) => { passing = elements.get(number); },
    release: (number) => {
      const event = new Event("change", { bubbles: true });
      released.add(event);
      elements.get(number).dispatchEvent(event);
    },
  };
})();
