//! Tokens: what a client shows after it has logged in. JWT, signed with a key of this root (HS256).

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// How long an access token is good. Clients log in again or refresh when it ends.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(10 * 60);
pub const REFRESH_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// 256 bits, as long as the hash.
pub type Secret = [u8; 32];

/// What a token says; all of it is signed. The keys are those that Oakestra's dashboard decodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub sub: String,
    /// The same as `sub`.
    pub user: String,
    pub roles: Vec<String>,
    /// Id of the organization.
    pub organization: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub fresh: bool,
    pub iat: u64,
    pub nbf: u64,
    pub exp: u64,
    pub jti: String,
    pub csrf: String,
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Access,
    /// Only for a new access token.
    Refresh,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("The token has expired: log in again.")]
    Expired,
    #[error("The token is not one of this root: log in again.")]
    Invalid,
    #[error("An {expected} token is needed here, this is another kind.")]
    Kind { expected: &'static str },
    #[error("The token could not be signed.")]
    Sign,
}

/// Makes and checks tokens.
#[derive(Clone)]
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Tokens {
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        Self { encoding: EncodingKey::from_secret(secret), decoding: DecodingKey::from_secret(secret) }
    }

    /// A token of this kind for a user. `now`: seconds since the epoch.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn issue(
        &self,
        kind: Kind,
        user: &str,
        roles: &[String],
        organization: &str,
        now: u64,
    ) -> Result<String, TokenError> {
        let lifetime = match kind {
            Kind::Access => ACCESS_LIFETIME,
            Kind::Refresh => REFRESH_LIFETIME,
        };
        let claims = Claims {
            sub: user.to_owned(),
            user: user.to_owned(),
            roles: roles.to_vec(),
            organization: organization.to_owned(),
            kind,
            fresh: kind == Kind::Access,
            iat: now,
            nbf: now,
            exp: now + lifetime.as_secs(),
            jti: random_text(),
            csrf: random_text(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|_unsigned| TokenError::Sign)
    }

    /// What the token says, if it is ours, of this kind and still good.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(&self, token: &str, kind: Kind) -> Result<Claims, TokenError> {
        // The only algorithm that is accepted is the one that is used: not what the token says of itself.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_nbf = true;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            })?
            .claims;
        if claims.kind == kind {
            Ok(claims)
        } else {
            Err(TokenError::Kind {
                expected: match kind {
                    Kind::Access => "access",
                    Kind::Refresh => "refresh",
                },
            })
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

fn random_text() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::{Kind, REFRESH_LIFETIME, TokenError, Tokens};

    fn tokens() -> Tokens {
        Tokens::new(&[7; 32])
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of today")]
    fn now() -> u64 {
        crate::clock::now() as u64
    }

    fn issue(tokens: &Tokens, kind: Kind, at: u64) -> String {
        tokens.issue(kind, "Admin", &["Admin".to_owned()], "6b033dd4d683569b0801fa18", at).unwrap()
    }

    #[test]
    fn a_token_says_who_it_was_issued_to() {
        let claims = tokens().check(&issue(&tokens(), Kind::Access, now()), Kind::Access).unwrap();
        assert_eq!((claims.sub.as_str(), claims.user.as_str()), ("Admin", "Admin"));
        assert_eq!(claims.exp - claims.iat, 600);
    }

    #[test]
    fn a_token_of_another_root_an_expired_and_a_refresh_token_are_refused() {
        let foreign = issue(&Tokens::new(&[8; 32]), Kind::Access, now());
        assert_eq!(tokens().check(&foreign, Kind::Access), Err(TokenError::Invalid));
        let old = issue(&tokens(), Kind::Refresh, now() - REFRESH_LIFETIME.as_secs() - 100);
        assert_eq!(tokens().check(&old, Kind::Refresh), Err(TokenError::Expired));
        let refresh = issue(&tokens(), Kind::Refresh, now());
        assert_eq!(tokens().check(&refresh, Kind::Access), Err(TokenError::Kind { expected: "access" }));
        assert_eq!(tokens().check("a.b.c", Kind::Access), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_that_claims_to_need_no_signature_is_refused() {
        let token = issue(&tokens(), Kind::Access, now());
        let payload = token.split('.').nth(1).unwrap();
        // {"alg":"none","typ":"JWT"}
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
        assert_eq!(tokens().check(&unsigned, Kind::Access), Err(TokenError::Invalid));
    }
}
