"""`moco list`: the recipes that there are."""

import json
from typing import Any

from components.report import Table
from pipelines.cli.options import Json
from pipelines.cli.output import print_json, say
from pipelines.recipes import Recipe, build_plan, load_recipe, recipe_names
from pipelines.tables import report_config
from pipelines.words import number


def list_recipes(*, json: Json = False) -> None:
    """List the recipes, with the tables and rows they fill."""
    recipes = [load_recipe(name) for name in recipe_names()]
    described = {recipe.name: _tables(recipe) for recipe in recipes}
    if json:
        print_json(
            [
                {
                    "name": recipe.name,
                    "summary": recipe.summary,
                    "tables": [_table_facts(table) for table in described[recipe.name]],
                }
                for recipe in recipes
            ]
        )
        return
    for recipe in recipes:
        say(f"{recipe.name}: {recipe.summary}")
        for table in described[recipe.name]:
            columns = ", ".join(column.key for column in table.columns)
            say(f"  {table.section}: {table.title} ({number(table.trials, 'trial')} of {columns})")
            say(f"    rows: {', '.join(row.key for row in table.rows if not row.unobtainable)}")
            for row in table.rows:
                if row.unobtainable:
                    say(f"    not {row.key}: {row.unobtainable}")
        say()
    say("`moco plan RECIPE --scale digits` shows what one would do, `moco run` does it.")


def _tables(recipe: Recipe) -> tuple[Table, ...]:
    return report_config(build_plan(recipe, recipe.listed)).tables


def _table_facts(table: Table) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(table.to_json())
    kept = ("key", "title", "section", "rows", "columns", "trials")
    return {name: facts[name] for name in kept}
