// What pages gain with a script: hover on charts, sorting, keys, copying, the
// live view. Without it every number is still on the page.
(() => {
  const tip = document.getElementById('tip');
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    tip.style.left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8) + 'px';
    tip.style.top = Math.max(8, y - tip.offsetHeight - 10) + 'px';
  };
  for (const svg of document.querySelectorAll('[data-chart]')) {
    const cursor = svg.querySelector('.cursor');
    for (const hit of svg.querySelectorAll('.hit')) {
      hit.querySelector('title')?.remove();
      hit.addEventListener('mousemove', e => {
        show(hit.dataset.tip, e.clientX, e.clientY);
        cursor.classList.add('on');
        cursor.setAttribute('x1', hit.dataset.x);
        cursor.setAttribute('x2', hit.dataset.x);
      });
    }
    svg.addEventListener('mouseleave', () => { tip.hidden = true; cursor.classList.remove('on'); });
  }

  // On a phone the menu is one line that scrolls.
  const current = document.querySelector('nav [aria-current]');
  if (current) current.parentElement.scrollLeft = current.offsetLeft - 60;

  const value = cell => {
    const text = cell.textContent.trim();
    const n = parseFloat(text.replace(/[,\s%]/g, '').replace('−', '-').replace('+', ''));
    return cell.classList.contains('n') ? (isNaN(n) ? -Infinity : n) : text.toLowerCase();
  };
  for (const table of document.querySelectorAll('table[data-sort]')) {
    [...table.tHead.rows[0].cells].forEach((th, i) => {
      th.dataset.by = '';
      th.tabIndex = 0;
      const sort = () => {
        const down = th.getAttribute('aria-sort') !== 'descending' && (th.classList.contains('n') || th.getAttribute('aria-sort') === 'ascending');
        for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
        th.setAttribute('aria-sort', down ? 'descending' : 'ascending');
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => {
          const x = value(a.cells[i]), y = value(b.cells[i]);
          return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
        });
        table.tBodies[0].append(...rows);
        more(table);
      };
      th.addEventListener('click', sort);
      th.addEventListener('keydown', e => { if (e.key === 'Enter') sort(); });
    });
  }
  function more(table) {
    const most = +(table.dataset.more || 0);
    if (!most) return;
    [...table.tBodies[0].rows].forEach((row, i) => { row.hidden = i >= most; });
  }
  for (const table of document.querySelectorAll('table[data-more]')) {
    const rest = table.tBodies[0].rows.length - table.dataset.more;
    if (rest <= 0) continue;
    more(table);
    const button = document.createElement('button');
    button.className = 'more';
    button.textContent = rest + ' more';
    button.addEventListener('click', () => { table.dataset.more = 0; for (const row of table.tBodies[0].rows) row.hidden = false; button.remove(); });
    table.parentNode.after(button);
  }
  document.addEventListener('click', e => {
    const row = e.target.closest('tr[data-href]');
    if (row && !e.target.closest('a, button, summary, details') && !getSelection().toString()) location.href = row.dataset.href;
    for (const open of document.querySelectorAll('details.drop[open]')) if (!open.contains(e.target)) open.open = false;
  });

  for (const pre of document.querySelectorAll('pre.copy')) {
    const button = document.createElement('button');
    button.textContent = 'copy';
    button.addEventListener('click', async () => {
      await navigator.clipboard.writeText(pre.querySelector('code').textContent);
      button.textContent = 'copied';
      setTimeout(() => { button.textContent = 'copy'; }, 1500);
    });
    pre.append(button);
  }

  let pending = '';
  document.addEventListener('keydown', e => {
    if (e.ctrlKey || e.metaKey || e.altKey || /INPUT|SELECT|TEXTAREA/.test(e.target.tagName)) return;
    const pages = { o: '/overview', u: '/usage', a: '/accounts', w: '/alerts', e: '/explore', b: '/boards', l: '/live', q: '/quality', h: '/health' };
    if (pending === 'g' && pages[e.key]) {
      const link = document.querySelector(`nav a[href^="${pages[e.key]}"]`);
      if (link) location.href = link.href;
    } else if (e.key === '/') {
      e.preventDefault();
      document.querySelector('.find input[type=search]')?.focus();
    } else if (e.key === '?') {
      document.getElementById('help').showModal();
    }
    pending = e.key;
  });

  const state = document.getElementById('live-state');
  if (state) {
    const body = document.querySelector('#live tbody');
    const stream = new EventSource(state.dataset.stream);
    stream.onopen = () => { state.textContent = 'live'; state.classList.add('on'); };
    stream.onerror = () => { state.textContent = 'connection lost, trying again'; state.classList.remove('on'); };
    stream.addEventListener('rows', e => {
      const part = document.createElement('template');
      part.innerHTML = '<table><tbody>' + JSON.parse(e.data) + '</tbody></table>'; // escaped by the server's templates
      const rows = [...part.content.querySelectorAll('tr')].filter(row => !body.querySelector(`[data-id="${CSS.escape(row.dataset.id)}"]`));
      rows.forEach(row => row.classList.add('fresh'));
      body.prepend(...rows);
      document.getElementById('live-empty')?.remove();
      while (body.rows.length > 200) body.rows[body.rows.length - 1].remove();
    });
    stream.addEventListener('note', e => { document.getElementById('live-note').textContent = JSON.parse(e.data); });
  }
})();
