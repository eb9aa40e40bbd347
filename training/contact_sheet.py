"""Draws a sheet of prompts through the packaged model: `python -m training.contact_sheet`.

Needs the package itself with its engine: `pip install -e ".[engine]"`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from comfyserve.engine.model import Model
from comfyserve.engine.sampling import SAMPLERS, SCHEDULERS, sample

PROMPTS = """
a red heart; green heart; blue heart; a black cat; cat face; dog face; fox; a fox in the snow
red apple; blue apple; purple apple; banana; strawberry; watermelon; pizza; hamburger
grinning face; face with tears of joy; angry face; crying face; robot; ghost; alien; skull
rocket; automobile; blue car; bicycle; sailboat; airplane; house; castle
sun; moon; star; rainbow; snowman; fire; tulip; rose
Christmas tree; yellow umbrella; crown; guitar; soccer ball; gift; key; light bulb
penguin; owl; pig face; frog; octopus; butterfly; lion; unicorn
hot beverage; birthday cake; ice cream; cherries; mushroom; cactus; four leaf clover; pink rocket
"""
CELL, LABEL = 96, 14


def main() -> None:
    """Write the sheet; every row of it goes through the samplers and schedulers in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("contact-sheet.png"))
    parser.add_argument("--seeds", type=int, default=1, help="how many pictures of each prompt")
    parser.add_argument("--prompts", default=PROMPTS, help="separated by semicolons and lines")
    parser.add_argument("--negative", default="")
    parser.add_argument("--steps", type=int, default=22)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--sampler", choices=SAMPLERS, default="dpmpp_3m_sde")
    parser.add_argument("--scheduler", choices=SCHEDULERS, default="karras")
    options = parser.parse_args()
    prompts = [p.strip() for p in options.prompts.replace("\n", ";").split(";") if p.strip()]
    model = Model.load()
    columns = 8
    rows = -(-len(prompts) * options.seeds // columns)
    sheet = Image.new("RGB", (columns * CELL, rows * (CELL + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    began = time.monotonic()
    for index, prompt in enumerate(prompts):
        latent = sample(
            model,
            model.empty_latent(CELL, CELL, options.seeds),
            positive=model.encode_text(prompt),
            negative=model.encode_text(options.negative),
            seed=index,
            steps=options.steps,
            cfg=options.cfg,
            sampler=options.sampler,
            scheduler=options.scheduler,
            on_step=lambda step, steps, clean: None,
        )
        for item, pixels in enumerate(model.decode(latent)):
            row, column = divmod(index * options.seeds + item, columns)
            place = column * CELL, row * (CELL + LABEL)
            sheet.paste(Image.fromarray((pixels * 255).astype(np.uint8)), place)
            draw.text((place[0] + 2, place[1] + CELL), prompt[:17], fill="black")
    sheet.save(options.out)
    spent = (time.monotonic() - began) / (len(prompts) * options.seeds)
    print(f"{options.out}: {len(prompts) * options.seeds} pictures, {spent:.2f} s each")


if __name__ == "__main__":
    main()
