// SPDX-License-Identifier: Apache-2.0
//! What the next revision of a template may say otherwise: actors move to it with
//! the volumes that they have.

use super::{ACCESS_MODES, Problems, Template, TemplateVolume, VOLUME_MODES, word_of};

impl Template {
    /// Everything that keeps `next` from following this revision. Volumes may
    /// come and go; one that stays may only grow, where `may_grow` says so of
    /// its class.
    pub fn check_next(&self, next: &Self, may_grow: impl Fn(&str) -> bool) -> Result<(), Problems> {
        let mut problems = Problems::default();
        for (index, volume) in next.volumes.iter().enumerate() {
            if let Some(last) = self.volumes.iter().find(|v| v.name == volume.name) {
                let path = format!("spec.volumes[{index}].externalVolumeTemplate");
                check(last, volume, &path, &may_grow, &mut problems);
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }
}

fn check(
    last: &TemplateVolume,
    next: &TemplateVolume,
    path: &str,
    may_grow: &impl Fn(&str) -> bool,
    problems: &mut Problems,
) {
    let mut stays = |field: &str, was: String, is: String| {
        if was != is {
            problems.add(
                &format!("{path}.{field}"),
                format_args!(
                    "cannot change from {} to {}: actors have volume {} with it; give the other volume another name",
                    shown(&was),
                    shown(&is),
                    last.name
                ),
            );
        }
    };
    let (was, is) = (&last.storage_class, &next.storage_class);
    stays("storageClassName", was.clone(), is.clone());
    let access = |v: &TemplateVolume| word_of(&ACCESS_MODES, v.access_mode).unwrap_or_default();
    stays("accessMode", access(last).into(), access(next).into());
    let mode = |v: &TemplateVolume| word_of(&VOLUME_MODES, v.volume_mode).unwrap_or_default();
    stays("volumeMode", mode(last).into(), mode(next).into());
    stays("fsType", last.fs_type.clone(), next.fs_type.clone());
    stays(
        "seLinuxMountContext",
        last.selinux_context.clone(),
        next.selinux_context.clone(),
    );
    let group = |v: &TemplateVolume| v.fs_group.map_or_else(String::new, |g| g.to_string());
    stays("fsGroup", group(last), group(next));
    let options = |v: &TemplateVolume| v.mount_options.join(",");
    stays("mountOptions", options(last), options(next));
    let (was, is) = (last.capacity, next.capacity);
    if is < was {
        problems.add(
            &format!("{path}.capacity"),
            format_args!("cannot shrink from {was} to {is}: volumes only grow"),
        );
    } else if is > was && !may_grow(&next.storage_class) {
        problems.add(
            &format!("{path}.capacity"),
            format_args!(
                "cannot grow from {was} to {is}: storage class {} does not allow it; apply the class with allowVolumeExpansion: true",
                next.storage_class
            ),
        );
    }
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "nothing" } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::template::parse;

    fn template(fields: &str) -> Template {
        let text = format!(
            "kind: ActorTemplate\nmetadata: {{name: t}}\nspec:\n  containers:\n  - volumeMounts: [{{name: a, mountPath: /a}}]\n  volumes:\n  - name: a\n    externalVolumeTemplate: {{{fields}}}\n"
        );
        parse(&text).unwrap()
    }

    #[test]
    fn every_field_that_may_not_change_is_named() {
        let last = template("capacity: 1Gi, storageClassName: pool, accessMode: ReadWriteOnce");
        let next = template(
            "capacity: 1Mi, storageClassName: fast, fsType: xfs, fsGroup: 7, seLinuxMountContext: 'u:r:t:s0', mountOptions: [noatime], reclaimPolicy: Retain",
        );
        let problems = last.check_next(&next, |_| true).unwrap_err();
        let paths: Vec<_> = problems
            .0
            .iter()
            .map(|p| p.path.rsplit('.').next())
            .collect();
        let wanted = [
            "storageClassName",
            "accessMode",
            "fsType",
            "seLinuxMountContext",
            "fsGroup",
            "mountOptions",
            "capacity",
        ];
        assert_eq!(paths, wanted.map(Some));
        assert!(
            problems.0[0]
                .path
                .starts_with("spec.volumes[0].externalVolumeTemplate.")
        );
    }

    #[test]
    fn a_volume_grows_where_its_class_allows_it() {
        let last = template("capacity: 1Gi, storageClassName: pool");
        let next = template("capacity: 2Gi, storageClassName: pool");
        assert_eq!(last.check_next(&next, |class| class == "pool"), Ok(()));
        let problems = last.check_next(&next, |_| false).unwrap_err();
        assert!(problems.0[0].message.contains("allowVolumeExpansion"));
        assert_eq!(last.check_next(&last, |_| false), Ok(()));
    }
}
