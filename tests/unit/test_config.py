"""Settings: every source is validated, the later source wins, and every error says what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from odb.config import RULES_MAX, load, runtime_directory, write_flat
from odb.errors import ConfigError, PlatformError
from odb.tables import OPTIONS_FILE, TableError, option_table, parse_size, stat_docs


def toml(folder: Path, text: str) -> Path:
    file = folder / "odb.toml"
    file.write_text(text)
    return file


def test_every_row_of_the_tables_is_read() -> None:
    rows = re.findall(r"^ODB_(?!PROFILE)[A-Z]+\((\w+),", OPTIONS_FILE.read_text(), re.MULTILINE)
    assert list(option_table().options) == rows
    assert set(option_table().profiles) >= {"default", "classic", "off"}
    assert all(option.doc for option in option_table().options.values())
    assert stat_docs()["fetch_bytes"] == "payload bytes fetched from an origin"


def test_defaults_and_profiles_of_the_table_are_valid() -> None:
    for profile in (None, *option_table().profiles):
        assert len(load(profile=profile).settings) == len(option_table().options)


def test_later_source_wins_and_says_where_it_came_from(tmp_path: Path) -> None:
    file = toml(tmp_path, 'coalesce = true\nvirtual_min = "16K"\n')
    config = load(profile="classic", file=file, assignments=["virtual_min=32K"])
    assert (config["fault_chunk"], config.settings["fault_chunk"].source) == ("65536", "profile classic")
    assert (config["coalesce"], config.settings["coalesce"].source) == ("on", str(file))
    assert (config["virtual_min"], config.settings["virtual_min"].source) == ("32768", "--set")
    assert (config["align"], config.settings["align"].source) == ("on", "default")


def test_profile_of_the_command_line_wins_over_that_of_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, 'profile = "off"\n')
    assert load(file=file)["mode"] == "off"
    assert load(file=file, profile="classic")["mode"] == "ports"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("virtual_min = 16384", "virtual_min", "16384"),
        ('virtual_min = "1m"', "virtual_min", "1048576"),
        ("align = false", "align", "off"),
        ('align = "on"', "align", "on"),
        ('capture = ["file"]', "capture", "file"),
        ('capture = ""', "capture", ""),
        ('listen = [":8080", "10.0.0.0/24:8000-8010"]', "listen", ":8080,10.0.0.0/24:8000-8010"),
        ('listen = " :80 , 10.1.0.0/16 "', "listen", ":80,10.1.0.0/16"),
        ('connect = "[2001:db8::/32]:80,2001:db8::1"', "connect", "[2001:db8::/32]:80,2001:db8::1"),
        ('stats_dir = "/run/odb/stats"', "stats_dir", "/run/odb/stats"),
        ("lease_ms = 5000", "lease_ms", "5000"),
    ],
)
def test_good_values_become_canonical(tmp_path: Path, text: str, name: str, value: str) -> None:
    assert load(file=toml(tmp_path, text))[name] == value


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("virtual_mn=1", "did you mean 'virtual_min'?"),
        ("nothing_like_it_at_all=1", "`odb options` lists"),
        ("mode=port", "did you mean 'ports'?"),
        ("mode=PORTS", "use off, ports or standalone"),
        ("capture=file,disk", "'disk' is not one of file, memory or reads"),
        ("capture=file,file", "name each word once"),
        ("align=yes", "use on or off"),
        ("virtual_min=1K", "from 4096 to 1073741824 bytes"),
        ("virtual_min=8KB", "suffixes K, M, G"),
        ("virtual_min=-1", "from 4096"),
        ("virtual_min=", "from 4096"),
        ("channels_max=0", "from 1 to 4096"),
        ("channels_max=1K", "from 1 to 4096"),
        ("deadline_ms=5s", "milliseconds"),
        ("lease_ms=99999999999", "milliseconds"),
        ("listen=example.org:80", "names are not resolved"),
        ("listen=10.0.0.0/33", "no IP address or network"),
        ("listen=10.0.0.0/255.0.0.0", "no IP address or network"),
        ("listen=fe80::1%eth0", "no IP address or network"),
        ("listen=:0", "from 1 to 65535"),
        ("listen=:70000", "from 1 to 65535"),
        ("listen=:90-80", "low-high"),
        ("listen=:", "from 1 to 65535"),
        ("listen=[::1", "[address]:port"),
        ("listen=[::1]80", "[address]:port"),
        ("listen=" + ",".join([":80"] * (RULES_MAX + 1)), f"at most {RULES_MAX}"),
        ("stats_dir=relative", "absolute path"),
        ("stats_dir=/with\nline", "absolute path"),
        ("virtual_min", "key=value"),
        ("=1", "key=value"),
    ],
)
def test_bad_assignments_are_refused_with_a_remedy(assignment: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(assignments=[assignment])
    assert says in str(caught.value)
    assert "--set" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("virtual_min = ", "not a TOML file"),
        ("virtual_min = true", "not true or false"),
        ("virtual_min = 1.5", "use a size"),
        ("virtual_min = [1]", "not this list"),
        ("listen = [80]", "not this list"),
        ("[listen]\nport = 80", "is a table"),
        ("capturing = []", "did you mean 'capture'?"),
        ('profile = "clasic"', "did you mean 'classic'?"),
        ("mode = 1979-05-27", "use off, ports or standalone"),
    ],
)
def test_bad_files_are_refused_and_named(tmp_path: Path, text: str, says: str) -> None:
    file = toml(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file=file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_unreadable_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file=tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file=tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load(file=tmp_path / "binary")


def test_unknown_profile_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--profile: there is no profile 'fast'"):
        load(profile="fast")


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("4K", 4096), ("1m", 1 << 20), ("2G", 2 << 30)])
def test_sizes_take_suffixes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "1.5K", "1KiB", "-1", "1T", "\u0661"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize(
    "row", ["nonsense", 'ODB_FLAG(x, "on")', 'ODB_COLOUR(x, "red", "doc")', 'ODB_FLAG(x, "on" "doc, "d")']
)
def test_broken_tables_are_told(tmp_path: Path, row: str) -> None:
    file = tmp_path / "options.def"
    file.write_text(row + "\n")
    with pytest.raises(TableError, match=r"options\.def:1"):
        option_table(file)


def test_flat_file_holds_every_option_and_is_named_after_its_content(tmp_path: Path) -> None:
    config = load(assignments=["listen=:80"])
    first, again = write_flat(config, tmp_path / "run"), write_flat(config, tmp_path / "run")
    other = write_flat(load(), tmp_path / "run")
    assert first == again != other
    pairs = dict(
        line.split(" =", 1)
        for line in first.read_text().splitlines()
        if line.strip() and not line.startswith("#")
    )
    assert {key: value.strip() for key, value in pairs.items()} == {
        key: config[key] for key in config.settings
    }
    assert first.stat().st_mode & 0o777 == 0o644
    assert sorted(first.parent.iterdir()) == sorted([first, other])


def test_flat_file_that_was_spoiled_is_written_anew(tmp_path: Path) -> None:
    file = write_flat(load(), tmp_path)
    file.write_text("mode = off\n")
    assert write_flat(load(), tmp_path).read_text() == load().flat()


def test_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(PlatformError, match="written by others"):
        write_flat(load(), shared)


def test_symbolic_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PlatformError, match="remove it"):
        write_flat(load(), tmp_path / "link")


def test_file_in_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="cannot be written"):
        write_flat(load(), tmp_path / "file")


def test_runtime_directory_belongs_to_the_user() -> None:
    assert runtime_directory({"XDG_RUNTIME_DIR": "/run/user/7"}, 0) == Path("/run/odb")
    assert runtime_directory({"XDG_RUNTIME_DIR": "/run/user/7"}, 7) == Path("/run/user/7/odb")
    assert runtime_directory({}, 7) == Path("/tmp/odb-7")


def test_bound_of_rules_is_that_of_the_runtime(root_directory: Path) -> None:
    header = (root_directory / "odb/runtime/core/rules.h").read_text()
    assert re.search(rf"#define ODB_RULES_MAX {RULES_MAX}\b", header)
    assert OPTIONS_FILE.samefile(root_directory / "odb/runtime/options.def")
