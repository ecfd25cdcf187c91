"""`--help` with the common flags in groups, `--help-all` with all flags."""

import click

GROUPS = {
    "Files": (
        "output", "report", "earlier", "resume", "save_every", "checkpoint", "checkpoint_every",
        "bit_depth", "max_pixels", "first_frame",
    ),
    "The image": (
        "size", "aspect", "strength", "preset_name", "style_blend", "preserve_color", "style_scale",
        "content_mask", "mask", "upscale",
    ),
    "The start": ("init", "seed", "batch", "noise_std", "noise_blend"),
    "The objective": (
        "weights_name", "content_layers", "style_layers", "content_weight", "style_weight",
        "tv_weight", "content_loss", "style_loss", "turn_style", "gram_normalization",
        "style_reduction", "content_reduction", "scale_content", "variation", "pooling",
        "convention",
    ),
    "The descent": (
        "steps", "scales", "scale_side", "scale_ratio", "scale_detail", "pyramid", "margin",
        "average", "optimizer", "learning_rate", "schedule", "decay", "momentum", "adam_b2",
        "history_size", "preconditioner", "bounds",
    ),
    "Memory and devices": ("tile", "remat", "precision", "devices"),
    "Progress": ("port", "quiet", "log_json"),
}  # fmt: skip
"""Names of parameters, by the title of their section in `--help`."""

COMMON = {
    "output", "report", "size", "aspect", "strength", "preset_name", "preserve_color", "init",
    "seed", "batch", "weights_name", "steps", "port", "quiet",
}  # fmt: skip
"""Names of parameters in `GROUPS` that `--help` explains; it only names the others."""


class GroupedCommand(click.Command):
    """A command whose `--help` explains the common flags and names the others.

    `--help-all` explains all of them. Flags that are not in `GROUPS` are always explained.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's parameters, with `--help` and `--help-all`."""
        return [*super().get_params(ctx), _HELP_ALL]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of the flags, in groups."""
        titles = {name: title for title, names in GROUPS.items() for name in names}
        order = {name: place for place, name in enumerate(titles)}
        explained: dict[str, list[tuple[str, str]]] = {"Flags": [], **{t: [] for t in GROUPS}}
        named = []
        everything = ctx.meta.get(_ALL, False)
        for parameter in sorted(self.get_params(ctx), key=lambda p: order.get(p.name or "", 0)):
            entry = parameter.get_help_record(ctx)
            if entry is None or isinstance(parameter, click.Argument):
                continue
            name = parameter.name or ""
            if everything or name in COMMON or name not in titles:
                explained[titles.get(name, "Flags")].append(entry)
            else:
                # No line break within a flag.
                named.append(parameter.opts[-1].replace("-", "\N{NON-BREAKING HYPHEN}"))
        own = explained.pop("Flags")
        for title, entries in (*explained.items(), ("Other", own)):
            if entries:
                with formatter.section(title):
                    formatter.write_dl(entries)
        if named:
            with formatter.section("Explained by --help-all"):
                formatter.write_text(", ".join(named))
            lines = formatter.buffer
            lines[:] = [line.replace("\N{NON-BREAKING HYPHEN}", "-") for line in lines]


_ALL = "jaxstyle.help_all"


def _show_all(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()


_HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_all,
    help="Show this message with all flags explained.",
)
