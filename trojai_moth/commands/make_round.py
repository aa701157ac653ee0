"""placeholder until make_round lands"""
import click
@click.command("make-round")
def make_round_command() -> None:
    """later"""
