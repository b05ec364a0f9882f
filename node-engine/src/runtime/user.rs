//! Under which user a container runs: the image's `User`, looked up in the image's own `/etc/passwd` and `/etc/group`.

/// Numbers of a user and its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

/// Whether `user` can only be understood with the image's files: a name, or a number whose groups stand there.
#[must_use]
pub fn needs_files(user: &str) -> bool {
    !(user.is_empty() || user == "0" || user == "0:0" || user == "root")
}

/// Reads `user`: `name`, `uid`, `name:group`, `uid:gid`, or empty for root.
///
/// # Errors
/// Which name is not in the image's files.
pub fn resolve(user: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd.lines().filter_map(Account::parse).find(|account| account.is(user));
    let uid = match (&entry, user.parse::<u32>()) {
        (Some(entry), _) => entry.uid,
        (None, Ok(uid)) => uid,
        (None, Err(_)) if user == "root" => 0,
        (None, Err(_)) => return Err(format!("there is no user {user:?} in its /etc/passwd")),
    };
    if let Some(wanted) = wanted_group {
        let gid = match (find_group(group, wanted), wanted.parse::<u32>()) {
            (Some(gid), _) | (None, Ok(gid)) => gid,
            (None, Err(_)) => return Err(format!("there is no group {wanted:?} in its /etc/group")),
        };
        return Ok(User { uid, gid, additional_gids: Vec::new() });
    }
    let gid = entry.as_ref().map_or(0, |entry| entry.gid);
    let additional_gids = entry.map_or_else(Vec::new, |entry| groups_of(group, entry.name, gid));
    Ok(User { uid, gid, additional_gids })
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> Account<'a> {
    /// `name:password:uid:gid:…`
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        Some(Self { name, uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }

    fn is(&self, user: &str) -> bool {
        self.name == user || user.parse() == Ok(self.uid)
    }
}

/// `name:password:gid:member,member`
fn group_fields(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let _password = fields.next()?;
    Some((name, fields.next()?.parse().ok()?, fields.next().unwrap_or_default()))
}

fn find_group(group: &str, wanted: &str) -> Option<u32> {
    group
        .lines()
        .filter_map(group_fields)
        .find(|(name, gid, _)| *name == wanted || wanted.parse() == Ok(*gid))
        .map(|(_, gid, _)| gid)
}

fn groups_of(group: &str, member: &str, primary: u32) -> Vec<u32> {
    group
        .lines()
        .filter_map(group_fields)
        .filter(|(_, gid, members)| *gid != primary && members.split(',').any(|name| name == member))
        .map(|(_, gid, _)| gid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{User, needs_files, resolve};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\nbroken line\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:web,other\ntape:x:51:other\n";

    fn user(uid: u32, gid: u32, additional_gids: &[u32]) -> User {
        User { uid, gid, additional_gids: additional_gids.to_vec() }
    }

    #[test]
    fn names_and_numbers_are_resolved() {
        for (text, expected) in [
            ("", user(0, 0, &[])),
            ("root", user(0, 0, &[])),
            ("web", user(33, 34, &[50])),
            ("33", user(33, 34, &[50])),
            ("1000", user(1000, 0, &[])),
            ("1000:1001", user(1000, 1001, &[])),
            ("web:logs", user(33, 50, &[])),
            ("web:0", user(33, 0, &[])),
        ] {
            assert_eq!(resolve(text, PASSWD, GROUP), Ok(expected), "{text:?}");
        }
        assert!(resolve("nobody", PASSWD, GROUP).unwrap_err().contains("nobody"));
        assert!(resolve("web:wheel", PASSWD, GROUP).unwrap_err().contains("wheel"));
    }

    #[test]
    fn root_needs_no_files() {
        assert!(!needs_files("") && !needs_files("0") && !needs_files("root"));
        assert!(needs_files("web") && needs_files("1000:1000"));
    }
}
