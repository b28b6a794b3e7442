//! The site's HTML pages.

/// The page with one video. `query` is passed on to it, with its question mark, or is empty.
pub(super) fn video_page(query: &str) -> String {
    page(
        "A sample video",
        &format!(
            "<video controls width=640 poster=\"/thumb.jpg\"><source src=\"/video.mp4{query}\" \
            type=\"video/mp4\"></video>"
        ),
    )
}

/// A page without any video.
pub(super) fn article() -> String {
    page(
        "An article",
        "<p>Words only: there is no video on this page, and a download of it must fail as unsupported.</p>",
    )
}

/// The index of the site, with whole addresses to copy.
pub(super) fn index(origin: &str, paths: &[(&str, &str)]) -> String {
    let rows: String = paths
        .iter()
        .map(|(path, words)| format!("<dt><a href=\"{path}\">{origin}{path}</a></dt><dd>{words}</dd>"))
        .collect();
    page(
        "A small video site on this machine",
        &format!("<p>Copy one of these addresses into Millrace.</p><dl>{rows}</dl>"),
    )
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport \
        content=\"width=device-width\"><title>{title}</title>\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:45rem;margin:2rem auto;padding:0 \
         1rem}}dt{{font-family:monospace}}\
         dd{{margin:0 0 .75rem}}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )
}
