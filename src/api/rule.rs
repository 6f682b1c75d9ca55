// SPDX-License-Identifier: Apache-2.0
//! Rules that templates, classes and grants share.

use std::collections::BTreeMap;

/// The most volumes of one template or grant.
pub(super) const MAX_VOLUMES: usize = 64;
/// The most mounts of one template or grant.
pub(super) const MAX_MOUNTS: usize = 256;
/// The longest path inside a container.
pub(super) const MAX_PATH_BYTES: usize = 4096;
/// CSI's limit on the sum of a map, or of the mount flags.
pub(super) const MAX_MAP_BYTES: usize = 4096;
/// The largest group id that the kernel and all drivers take for one.
pub(super) const MAX_GROUP: u32 = 0x7fff_ffff;
/// CSI's limit on a string.
pub(super) const MAX_STRING_BYTES: usize = 128;

/// Why a rule is broken: the predicate of a sentence that begins with the field.
pub(super) type Rule = Result<(), String>;

/// A path inside a container: absolute and clean, and not the root.
pub(super) fn check_mount_path(path: &str) -> Rule {
    let reason = if path.len() > MAX_PATH_BYTES {
        return Err(format!("is longer than {MAX_PATH_BYTES} bytes"));
    } else if !path.starts_with('/') {
        "must be absolute, beginning with '/'"
    } else if path == "/" {
        "must not be '/': choose a directory below it"
    } else if path.chars().any(char::is_control) {
        "must not hold control characters"
    } else if path.ends_with('/') {
        "must not end with '/'"
    } else if path[1..].split('/').any(str::is_empty) {
        "must not hold '//'"
    } else if path[1..].split('/').any(|part| part == "." || part == "..") {
        "must not hold '.' or '..' as a part"
    } else {
        return Ok(());
    };
    Err(format!("{path:?} {reason}"))
}

/// Mount flags. They may be sensitive, so that no message quotes one.
pub(super) fn check_mount_flags(flags: &[String]) -> Rule {
    if flags.iter().map(String::len).sum::<usize>() > MAX_MAP_BYTES {
        return Err(format!("are longer than {MAX_MAP_BYTES} bytes together"));
    }
    if flags.iter().any(String::is_empty) {
        return Err("must not hold an empty flag".into());
    }
    if flags.iter().any(|flag| flag.chars().any(char::is_control)) {
        return Err("must not hold control characters".into());
    }
    Ok(())
}

/// The longest SELinux context.
const MAX_CONTEXT_BYTES: usize = 255;

/// An SELinux context, `user:role:type:level`: words of its own characters, so that it
/// can neither end the quotes that it is put in nor bring another mount option.
pub(super) fn check_selinux_context(context: &str) -> Rule {
    let word = |part: &str, more: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c) || more.contains(c);
        !part.is_empty() && part.chars().all(plain)
    };
    let mut parts = context.splitn(4, ':');
    let whole = (0..3).all(|_| parts.next().is_some_and(|part| word(part, "")))
        && parts.next().is_some_and(|level| word(level, ":,"));
    if whole && context.len() <= MAX_CONTEXT_BYTES {
        return Ok(());
    }
    Err(format!(
        "{context:?} is not an SELinux context: write user:role:type:level of at most {MAX_CONTEXT_BYTES} letters, digits, '_', '-', '.', and ':' and ',' in the level, such as system_u:object_r:container_file_t:s0:c1,c2"
    ))
}

/// Mount options beside which a context cannot be given.
pub(super) fn check_no_context(options: &[String]) -> Rule {
    let names = ["context=", "fscontext=", "defcontext=", "rootcontext="];
    let is_one = |option: &str| names.iter().any(|name| option.trim().starts_with(name));
    if options.iter().any(|flag| flag.split(',').any(is_one)) {
        return Err(
            "holds an SELinux context beside the one that is asked for: leave one of them out"
                .into(),
        );
    }
    Ok(())
}

/// The mount flag of a context, in quotes for the comma in it.
pub fn selinux_mount_flag(context: &str) -> String {
    format!("context=\"{context}\"")
}

/// The name of a file system type; empty: the driver's choice.
pub(super) fn check_fs_type(name: &str) -> Rule {
    let ok = name.len() <= MAX_STRING_BYTES
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if ok {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not a file system type: use at most {MAX_STRING_BYTES} letters, digits, '-', '_' and '.'"
    ))
}

/// A map that a driver is given. No message quotes what it holds.
pub(super) fn check_map(map: &BTreeMap<String, String>) -> Rule {
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_MAP_BYTES {
        return Err(format!(
            "has {bytes} bytes: CSI allows {MAX_MAP_BYTES} in all"
        ));
    }
    if map.contains_key("") {
        return Err("must not hold an empty key".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_path_is_absolute_clean_and_not_the_root() {
        let longest = format!("/{}", "x".repeat(MAX_PATH_BYTES - 1));
        for good in ["/a", "/my-data", "/a/b c/ä", "/...", "/.a/b..", &longest] {
            assert_eq!(check_mount_path(good), Ok(()), "{good}");
        }
        let too_long = format!("{longest}x");
        for bad in [
            "", "a", "a/b", "/", "//", "/a/", "/a//b", "//a", "/./a", "/a/.", "/a/..", "/../a",
            "/a\nb", "/a\0", "/a\u{85}", &too_long,
        ] {
            assert!(check_mount_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mount_flags_and_maps_have_the_limits_of_csi() {
        let flag = |len: usize| "x".repeat(len);
        assert_eq!(check_mount_flags(&[flag(4000), flag(96)]), Ok(()));
        assert!(check_mount_flags(&[flag(4000), flag(97)]).is_err());
        assert!(check_mount_flags(&[flag(0)]).is_err());
        assert!(check_mount_flags(&["a\nb".into()]).is_err());
        let map = |len: usize| BTreeMap::from([("key".to_owned(), flag(len))]);
        assert_eq!(check_map(&map(4093)), Ok(()));
        assert!(check_map(&map(4094)).is_err());
        assert!(check_map(&BTreeMap::from([(String::new(), String::new())])).is_err());
    }

    #[test]
    fn a_selinux_context_is_four_words_and_nothing_more() {
        for good in [
            "system_u:object_r:container_file_t:s0",
            "system_u:object_r:container_file_t:s0:c1,c2",
            "u:r:t:s0-s0:c0.c1023",
        ] {
            assert_eq!(check_selinux_context(good), Ok(()), "{good}");
        }
        let long = format!("u:r:t:{}", "s".repeat(250));
        for bad in [
            "",
            "u:r:t",
            "u:r:t:",
            "u:r::s0",
            "u:r:t,x:s0",
            "u:r:t:s0\",suid,context=\"u:r:t:s0",
            "u:r:t:s0 c1",
            "u:r:t:s0\n",
            "u:r:t:s0\0",
            "u:r:tü:s0",
            "u:r:t:s0=x",
            "u:r:t:s0\\",
            &long,
        ] {
            assert!(check_selinux_context(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_context_stands_alone() {
        let options = |text: &str| [text.to_owned()];
        assert_eq!(check_no_context(&options("noatime,contextual")), Ok(()));
        for bad in ["context=x", "noatime, rootcontext=\"x\"", "fscontext=x"] {
            assert!(check_no_context(&options(bad)).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_taken_for_a_context_stays_one_option_in_its_quotes(
            text in "([a-z_\",= :\\\\]|\\PC){0,20}|[a-z]{1,3}:[a-z]{1,3}:[a-z]{1,3}:[a-z0-9:,.\"]{0,9}"
        ) {
            if check_selinux_context(&text).is_ok() {
                let flag = selinux_mount_flag(&text);
                let inner = flag.strip_prefix("context=\"").and_then(|f| f.strip_suffix('"'));
                proptest::prop_assert_eq!(inner, Some(text.as_str()));
                proptest::prop_assert!(!text.contains(['"', '\\', '=', ' ']));
                proptest::prop_assert_eq!(check_mount_flags(&[flag]), Ok(()));
            }
        }
    }

    #[test]
    fn a_file_system_type_is_one_word() {
        for good in ["", "ext4", "fuse.s3fs", "nfs4"] {
            assert_eq!(check_fs_type(good), Ok(()));
        }
        for bad in ["ext4 rw", "a/b", "ext4,ro", &"x".repeat(129)] {
            assert!(check_fs_type(bad).is_err(), "{bad}");
        }
    }
}
