"""The page of `instructsam web`: questions about an image in a browser, with masks, times and a 3D view.

The page is built with Gradio, which users of vision models know from the Hugging Face Hub. It brings what is hard to
get right: upload, clipboard and webcam, a queue with a state per tab, and plotly.js, all of it served from the package,
so that the page works without a network. Why not another library: Streamlit runs the whole script again for every click
and cannot replace a question that is being answered. viser is a 3D viewer with few widgets for images. NiceGUI is
smaller and has the better 3D scene, but no webcam.

The masks are an SVG of our own in Gradio's HTML component: its AnnotatedImage shows a mask while the pointer is on its
label only, and cannot hide one.
"""
