"""What all pages share: theme, styles, keys, and text that is safe to put into HTML."""

import re
from html import escape
from typing import Any, Literal

CSS = """
.gradio-container { width: 100% !important; max-width: 1160px !important; margin: 0 auto !important; }
.html-container { padding: 0 !important; }
#brand { border-bottom: 1px solid var(--border-color-primary); padding-bottom: 10px; }
#brand h1 { font-size: 1.25rem; font-weight: 600; margin: 0; }
#brand p { color: var(--body-text-color-subdued); margin: 2px 0 0; }
.notice { margin: 0; padding: 9px 13px; border-radius: 8px; border-left: 4px solid var(--color-accent);
  background: var(--background-fill-secondary); color: var(--body-text-color); white-space: pre-wrap;
  overflow-wrap: anywhere; }
.notice.problem { border-left-color: #d97706; }
.notice code { white-space: nowrap; padding: 1px 5px; border-radius: 4px; background: var(--background-fill-primary); }
.answer textarea { font-size: 1rem; line-height: 1.55; opacity: 1; }
.answer textarea:not(:placeholder-shown) { -webkit-text-fill-color: var(--body-text-color); }
.answer textarea:placeholder-shown { -webkit-text-fill-color: var(--input-placeholder-color); }
#votes button { min-width: 120px; }
.label-wrap > span:first-child { text-align: left; }
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
    """The app's colours, in the system's own fonts: no page asks another server for anything."""
    import gradio as gr

    fonts = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    look = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", radius_size="md", font=fonts, font_mono=("ui-monospace", "monospace")
    )
    # Gradio's own greys and teals are too pale to be read by everybody (WCAG 2.2, 1.4.3: at least 4.5 to 1).
    return look.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def notice(text: str, kind: Literal["", "problem"] = "") -> str:
    """A line for the person at the page, announced by screen readers; what stands in backquotes is code."""
    shown = re.sub("`(.+?)`", r"<code>\1</code>", plain(text))
    return f'<p class="notice {kind}" role="{"alert" if kind else "status"}">{shown}</p>'


def plain(text: str) -> str:
    """Text that shows as it is; what looks like markup or like Gradio's template fields included."""
    return escape(text).replace("{", "&#123;").replace("$", "&#36;")
