//! Where pictures go: a folder, or a prefix in an object store. Enters: a path, or a URL with options. Leaves: a checked
//! [`Target`]. It opens nothing and asks no network.

use std::{fmt, path::PathBuf};

use crate::{Error, ErrorKind, Result};

/// The place below which all pictures of a [`SavePool`](super::SavePool) are written.
///
/// ```
/// use luna_core::save::{SaveConfig, Target};
/// let local = SaveConfig::new("output");
/// assert!(matches!(&local.root, Target::Folder(path) if path.ends_with("output")));
/// // Without the feature `object-store` this is refused with a remedy.
/// let store = Target::store("s3://pictures/2026", [("aws_region", "eu-central-1")]);
/// assert_eq!(store.is_ok(), cfg!(feature = "object-store"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Target {
    /// A folder, made if it is missing.
    Folder(PathBuf),
    /// A prefix in an object store, see [`Target::store`].
    Store(StoreTarget),
}

/// A prefix in an object store. Made by [`Target::store`].
#[derive(Clone)]
pub struct StoreTarget {
    pub(super) scheme: Scheme,
    /// Bucket or container.
    pub(super) bucket: String,
    pub(super) prefix: Vec<String>,
    /// Secrets are among them.
    #[cfg_attr(not(feature = "object-store"), expect(dead_code))]
    pub(super) options: Vec<(String, String)>,
}

/// Who speaks which language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    Google,
    Azure,
    /// A store in this process, for tests.
    #[cfg(test)]
    Memory,
}

impl Target {
    /// A prefix in an object store: `s3://BUCKET/PREFIX` (Amazon S3 and what is compatible with it), `gs://BUCKET/PREFIX`,
    /// `az://CONTAINER/PREFIX`.
    ///
    /// The options are those of the crate `object_store`, such as `aws_access_key_id`, `aws_secret_access_key`,
    /// `aws_region`, `aws_endpoint` (for stores that are not Amazon's), `aws_allow_http`, `google_service_account`,
    /// `azure_storage_account_name`, `azure_storage_account_key`, `timeout`; the environment is not read. A store must
    /// support conditional puts (all of these do), as they are what keeps pictures from being overwritten.
    ///
    /// # Errors
    /// `Unsupported` if Luna was built without the feature `object-store`, or for another kind of URL; `InvalidInput`
    /// for a wrong URL or an unknown option.
    pub fn store<K: Into<String>, V: Into<String>>(
        url: &str,
        options: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let wrong = |kind, message: &str| {
            Error::new(kind, message.to_owned())
                .expected("s3://BUCKET/PREFIX, gs://… or az://…")
                .found(format!("{url:?}"))
        };
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| wrong(ErrorKind::InvalidInput, "this is no URL of an object store"))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "s3" => Scheme::S3,
            "gs" => Scheme::Google,
            "az" => Scheme::Azure,
            #[cfg(test)]
            "memory" => Scheme::Memory,
            _ => return Err(wrong(ErrorKind::Unsupported, "Luna cannot write to this kind of place")),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || !bucket.chars().all(named) {
            return Err(wrong(ErrorKind::InvalidInput, "the URL names no bucket"));
        }
        let prefix: Vec<_> = prefix.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if prefix.iter().any(|part| part == "." || part == ".." || part.chars().any(char::is_control)) {
            return Err(wrong(ErrorKind::InvalidInput, "the URL's prefix cannot be a name in a store"));
        }
        if !cfg!(feature = "object-store") {
            return Err(Error::new(ErrorKind::Unsupported, "this Luna was built without object stores")
                .found(format!("{url:?}"))
                .remedy("build it with `--features object-store`, or name a folder"));
        }
        let options = options.into_iter().map(|(key, value)| (key.into().to_ascii_lowercase(), value.into())).collect();
        let store = StoreTarget { scheme, bucket: bucket.to_owned(), prefix, options };
        #[cfg(feature = "object-store")]
        super::root::check_options(&store)?;
        Ok(Self::Store(store))
    }
}

impl<P: Into<PathBuf>> From<P> for Target {
    fn from(path: P) -> Self {
        Self::Folder(path.into())
    }
}

/// The path, or the URL.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Store(store) => store.fmt(f),
        }
    }
}

impl fmt::Display for StoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::S3 => "s3",
            Scheme::Google => "gs",
            Scheme::Azure => "az",
            #[cfg(test)]
            Scheme::Memory => "memory",
        };
        write!(f, "{scheme}://{}", self.bucket)?;
        self.prefix.iter().try_for_each(|part| write!(f, "/{part}"))
    }
}

/// Without the options, as secrets are among them.
impl fmt::Debug for StoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreTarget({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [(&str, &str); 0] = [];

    #[test]
    fn urls_that_name_no_store_are_refused() {
        for (url, kind) in [
            ("output", ErrorKind::InvalidInput),
            ("s3://", ErrorKind::InvalidInput),
            ("s3:///x", ErrorKind::InvalidInput),
            ("s3://user@bucket/x", ErrorKind::InvalidInput),
            ("s3://bucket/a/../b", ErrorKind::InvalidInput),
            ("https://example.org/x", ErrorKind::Unsupported),
            ("file:///tmp", ErrorKind::Unsupported),
        ] {
            assert_eq!(Target::store(url, NONE).expect_err(url).kind(), kind, "{url}");
        }
    }

    #[cfg(not(feature = "object-store"))]
    #[test]
    fn a_build_without_stores_says_so() {
        let error = Target::store("s3://bucket/x", NONE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.advice().unwrap().contains("--features object-store"), "{error}");
    }

    #[cfg(feature = "object-store")]
    #[test]
    fn a_store_keeps_its_secrets_and_knows_its_options() {
        let target =
            Target::store("S3://bucket/a//b/", [("AWS_SECRET_ACCESS_KEY", "hush"), ("aws_region", "x")]).unwrap();
        assert_eq!(target.to_string(), "s3://bucket/a/b");
        assert!(!format!("{target:?}").contains("hush"));
        for (url, key) in [("s3://b", "aws_secret"), ("gs://b", "aws_region"), ("az://b", "google_bucket")] {
            let error = Target::store(url, [(key, "x")]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
