//! The certificates in a file: any number of PEM blocks, or one in DER. What is no certificate is passed over.

use std::net::IpAddr;

use jiff::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::time::ASN1Time;

use crate::model::certificate::Certificate;
use crate::model::ids::Digest;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Only blocks that begin as a certificate are decoded: a key in the same file is not looked at.
pub(super) fn certificates(path: &str, bytes: &[u8]) -> Vec<Certificate> {
    let begins = bytes.windows(BEGIN.len()).enumerate().filter(|(_, part)| *part == BEGIN).map(|(at, _)| at);
    let begins: Vec<usize> = begins.collect();
    if begins.is_empty() {
        return certificate(path, bytes).into_iter().collect();
    }
    // Each for itself, so that one that breaks off takes no other with it; up to the next, so that no byte is read twice.
    let ends = begins.iter().skip(1).copied().chain([bytes.len()]);
    begins
        .iter()
        .zip(ends)
        .filter_map(|(begin, end)| parse_x509_pem(&bytes[*begin..end]).ok())
        .filter_map(|(_, block)| certificate(path, &block.contents))
        .collect()
}

fn certificate(path: &str, der: &[u8]) -> Option<Certificate> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = match parsed.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).collect(),
        _ => Vec::new(),
    };
    // A leading zero is DER's way to say that the number is not negative.
    let serial = match parsed.raw_serial() {
        [0, rest @ ..] if !rest.is_empty() => rest,
        whole => whole,
    };
    Some(Certificate {
        path: path.to_owned(),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial: hex::encode(serial),
        names,
        not_before: time(parsed.validity().not_before),
        not_after: time(parsed.validity().not_after),
        is_ca: parsed.is_ca(),
        sha256: Digest::of(parsed.as_raw()),
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// The end of the year 9999, which says that a certificate never ends, is just beyond the last time that there is.
fn time(time: ASN1Time) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(if time.timestamp() > 0 {
        Timestamp::MAX
    } else {
        Timestamp::MIN
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    /// A server's certificate and the authority that it is from, made by openssl. Their keys are thrown away.
    const CHAIN: &str = include_str!("chain.pem");

    fn subjects(bytes: &[u8]) -> Vec<String> {
        certificates("certs/chain.pem", bytes).into_iter().map(|certificate| certificate.subject).collect()
    }

    fn der(pem: &str) -> Vec<u8> {
        let base64: String = pem.lines().skip(1).take_while(|line| !line.starts_with('-')).collect();
        base64::engine::general_purpose::STANDARD.decode(base64).unwrap()
    }

    #[test]
    fn what_openssl_says_of_a_chain_is_read_from_it() {
        let [web, ca] = <[Certificate; 2]>::try_from(certificates("certs/chain.pem", CHAIN.as_bytes())).unwrap();
        let authority = "O=Shop, CN=Throw-away CA";
        assert_eq!(
            web,
            Certificate {
                path: "certs/chain.pem".into(),
                subject: "CN=www.shop.example".into(),
                issuer: authority.into(),
                serial: "f00dcafe0000000000000000000000000000002a".into(),
                names: ["www.shop.example", "*.shop.example", "10.0.0.7", "2001:db8::7"].map(Into::into).into(),
                not_before: "2026-11-26T09:02:15Z".parse().unwrap(),
                not_after: "2027-02-24T09:02:15Z".parse().unwrap(),
                is_ca: false,
                sha256: Digest::new("3a333b8d1a3ba1f44413f87b2f5222a85a1e861f68287f2724a3f2d8783b8982"),
            }
        );
        assert_eq!((ca.subject.as_str(), ca.issuer.as_str(), ca.serial.as_str()), (authority, authority, "01"));
        assert!(ca.is_ca && ca.names.is_empty());
    }

    #[test]
    fn der_is_the_same_certificate() {
        let [web, _] = <[Certificate; 2]>::try_from(certificates("web.der", CHAIN.as_bytes())).unwrap();
        assert_eq!(certificates("web.der", &der(CHAIN)), [web]);
    }

    #[test]
    fn a_file_cut_anywhere_gives_those_that_are_whole_and_never_a_panic() {
        for end in 0..CHAIN.len() {
            let whole = CHAIN[..end].matches("-----END ").count();
            assert_eq!(subjects(&CHAIN.as_bytes()[..end]).len(), whole, "cut at {end}");
        }
        let der = der(CHAIN);
        for end in 0..der.len() {
            assert_eq!(subjects(&der[..end]).len(), 0, "cut at {end}");
        }
    }

    #[test]
    fn one_that_breaks_off_takes_no_other_with_it() {
        let (web, ca) = CHAIN.split_at(CHAIN.find("-----END ").unwrap());
        let cut = format!("{}\n{}", &web[..200], &ca[ca.find("-----BEGIN ").unwrap()..]);
        assert_eq!(subjects(cut.as_bytes()), ["O=Shop, CN=Throw-away CA"]);
    }

    #[test]
    fn a_file_of_beginnings_is_read_once() {
        let since = std::time::Instant::now();
        let file = "-----BEGIN CERTIFICATE-----\n".repeat(6_000);
        assert_eq!(subjects(file.as_bytes()).len(), 0);
        assert!(since.elapsed().as_secs() < 5, "{:?}", since.elapsed());
    }

    #[test]
    fn a_byte_that_is_another_is_no_panic() {
        let right = der(CHAIN);
        for at in 0..right.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut wrong = right.clone();
                wrong[at] ^= mask;
                subjects(&wrong);
            }
        }
    }

    #[test]
    fn what_is_no_certificate_is_passed_over() {
        let key = "-----BEGIN PRIVATE KEY-----\nbm8ga2V5\n-----END PRIVATE KEY-----\n";
        let noise = [0x30, 0x82, 0xff, 0xff, 0x00, 0x9f];
        let text = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
        for bytes in [b"".as_slice(), key.as_bytes(), &noise, text.as_bytes(), b"-----BEGIN CERTIFICATE-----"] {
            assert_eq!(subjects(bytes).len(), 0);
        }
        assert_eq!(subjects(format!("Bag: \u{fc}\n{key}{CHAIN}{key}").as_bytes()).len(), 2);
    }

    #[test]
    fn a_certificate_that_never_ends_has_the_last_time_that_there_is() {
        let never = ASN1Time::from_timestamp(253_402_300_799).unwrap();
        assert_eq!(time(never), Timestamp::MAX);
    }
}
