// Runs before the first paint, so that a chosen theme doesn't flash. See src/core/theme.ts.
(function () {
  try {
    var chosen = localStorage.getItem('varve.theme');
    if (chosen === '"light"' || chosen === '"dark"') document.documentElement.dataset.theme = chosen.slice(1, -1);
  } catch (e) {
    // Storage may be off: the theme of the system holds.
  }
})();
