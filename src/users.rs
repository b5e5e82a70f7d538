//! The users of this machine by their login names.
//!
//! Must never: guess. A name that is not in `/etc/passwd` has no number.

use std::fs;

/// The number of a user. A user that is not in `/etc/passwd` (in LDAP, say) is named by the number itself.
pub fn uid_of(name: &str) -> Option<u32> {
    let users = String::from_utf8_lossy(&fs::read("/etc/passwd").unwrap_or_default()).into_owned();
    in_list(&users, name)
        .or_else(|| if name.bytes().all(|b| b.is_ascii_digit()) { name.parse().ok() } else { None })
}

fn in_list(users: &str, name: &str) -> Option<u32> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? == name { fields.nth(1)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_number() {
        assert_eq!((uid_of("root"), uid_of("1234567"), uid_of("")), (Some(0), Some(1_234_567), None));
        assert_eq!(
            (uid_of("no user has this name"), uid_of("-1"), uid_of("99999999999")),
            (None, None, None)
        );
        let list = "a:x:1:7::/:/bin/sh\nab:x:2:7::/:\nbroken\n12:x:3:7::/:\n";
        assert_eq!((in_list(list, "ab"), in_list(list, "b"), in_list(list, "12")), (Some(2), None, Some(3)));
    }
}
