"use strict";
// Adds a button to each command that copies it. Without this script, a click on a command selects it.
for (const command of document.querySelectorAll("code.command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy: " + command.textContent.slice(0, 80));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(command);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  const line = document.createElement("span");
  line.className = "line";
  command.replaceWith(line);
  line.append(command, button);
}
