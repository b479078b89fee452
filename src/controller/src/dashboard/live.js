// Refreshes every element with data-live from the fragment it names. Without this script the page is read by reloading.
"use strict";
async function refresh(element) {
  try {
    const response = await fetch(element.dataset.live, { credentials: "same-origin", redirect: "error" });
    if (response.ok) {
      element.innerHTML = await response.text();
      document.body.classList.remove("away");
    } else {
      document.body.classList.add("away");
    }
  } catch {
    document.body.classList.add("away");
  }
  setTimeout(refresh, document.hidden ? 10000 : 1500, element);
}
document.querySelectorAll("[data-live]").forEach((element) => setTimeout(refresh, 1500, element));
