// Runs only in browsers without JavaScript modules; everything else is in page.js.
document.getElementById("stage").textContent =
  "This browser is too old: it has no JavaScript modules, which onnxruntime-web requires. Update it, or use another one.";
document.getElementById("stage").className = "bad";
