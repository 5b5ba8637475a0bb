'use strict';
const form = document.querySelector('form');
const items = [...document.querySelectorAll('[data-state]')];
const apply = () => {
  const text = form.elements.text.value.toLowerCase();
  const [state, area] = [form.elements.state.value, form.elements.area.value];
  let shown = 0;
  for (const item of items) {
    const hit = (!state || item.dataset.state === state) && (!area || item.dataset.area === area)
      && (!text || item.textContent.toLowerCase().includes(text));
    item.hidden = !hit;
    shown += hit;
  }
  for (const group of document.querySelectorAll('section')) {
    const inside = [...group.querySelectorAll('[data-state]')];
    group.hidden = inside.length > 0 && inside.every((item) => item.hidden);
  }
  document.querySelector('#shown').textContent = `${shown} of ${items.length}`;
};
form.addEventListener('input', apply);
form.addEventListener('submit', (event) => event.preventDefault());
apply();
