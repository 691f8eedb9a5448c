// SPDX-License-Identifier: GPL-2.0-only
// Loads the page again when a run appears or changes. Without it the page is read by hand.
"use strict";
(() => {
  const note = document.getElementById("live");
  let seen = null;
  async function look() {
    try {
      const answer = await fetch("/state", { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const state = await answer.text();
      if (seen !== null && state !== seen) { location.reload(); return; }
      seen = state;
      note.textContent = "This page follows the folder.";
    } catch {
      note.textContent = "The server has ended; this page no longer follows the folder.";
    }
    setTimeout(look, 2000);
  }
  look();
})();
