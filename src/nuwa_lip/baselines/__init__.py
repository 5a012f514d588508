"""Methods that NÜWA-LIP is compared with; each repaints a benchmark's items by the same command.

    GLIDE    `glide*`: ours, which is trained on the same photos; `glide_published`: the published weights
    others   `diffusers_pipelines`: aMUSEd, Stable Diffusion; `lama`

VQGAN and NÜWA are our own models with switches off (recipes `vqgan-mini` and `nuwa-mini`), measured with
`--unpasted`, or as VQGAN-P and NÜWA-P without it.
"""
