// Runs before the first paint, so that a chosen theme does not flash in the other one.
{
  let theme = null;
  try { theme = localStorage.getItem("eve:theme"); } catch { /* storage is switched off */ }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
