"""What all pages share: theme, styles, keys, and text that is safe to put into HTML."""

from html import escape
from typing import Any, Literal

CSS = """
.gradio-container { max-width: 1160px !important; margin: 0 auto !important; }
#brand { border-bottom: 1px solid var(--border-color-primary); padding-bottom: 10px; }
#brand h1 { font-size: 1.25rem; font-weight: 600; margin: 0; }
#brand p { color: var(--body-text-color-subdued); margin: 2px 0 0; }
.notice { margin: 0; padding: 9px 13px; border-radius: 8px; border-left: 4px solid var(--color-accent);
  background: var(--background-fill-secondary); color: var(--body-text-color); white-space: pre-wrap;
  overflow-wrap: anywhere; }
.notice.problem { border-left-color: #d97706; }
.notice code { padding: 1px 5px; border-radius: 4px; background: var(--background-fill-primary); }
.answer textarea { font-size: 1rem; line-height: 1.55; opacity: 1; -webkit-text-fill-color: var(--body-text-color); }
#votes button { min-width: 120px; }
#votes button kbd { display: none; }
.rate { margin: 12px 0 0; }
.rate .track { position: relative; height: 12px; border-radius: 6px; margin: 8px 0 4px;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.rate .interval { position: absolute; top: 0; bottom: 0; border-radius: 6px; background: var(--color-accent);
  opacity: 0.35; }
.rate .point { position: absolute; top: -4px; width: 4px; height: 18px; margin-left: -2px; border-radius: 2px;
  background: var(--color-accent); }
.rate .even { position: absolute; top: 0; bottom: 0; left: 50%; border-left: 1px dashed var(--body-text-color); }
.rate .ends { display: flex; justify-content: space-between; font-size: 0.85rem;
  color: var(--body-text-color-subdued); }
footer { display: none !important; }
@media (max-width: 600px) {
  .gradio-container { padding: 8px !important; }
  #votes button { min-width: 42%; }
}
"""

# Keys vote unless they would type; a button that is disabled does nothing when it is clicked.
HEAD = """
<script>
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const ids = { a: "vote-a", b: "vote-b", t: "vote-tie", x: "vote-bad" };
  document.getElementById(ids[event.key.toLowerCase()])?.click();
});
</script>
"""


def theme() -> Any:
    """The app's colours, with fonts that Gradio itself ships: no page asks another server for anything."""
    import gradio as gr

    return gr.themes.Default(primary_hue="teal", neutral_hue="slate", radius_size="md")


def notice(text: str, kind: Literal["", "problem"] = "") -> str:
    """A line for the person at the page, announced by screen readers."""
    return f'<p class="notice {kind}" role="{"alert" if kind else "status"}">{plain(text)}</p>'


def plain(text: str) -> str:
    """Text that shows as it is; what looks like markup or like Gradio's template fields included."""
    return escape(text).replace("{", "&#123;").replace("$", "&#36;")
