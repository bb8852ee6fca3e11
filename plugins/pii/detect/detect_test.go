package detect

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

const key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpA==\nabc\n-----END RSA PRIVATE KEY-----"

func TestMask(t *testing.T) {
	jwt := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"nothing here 12 34", ""},
		// EMAIL
		{"ada@example.com", "a**@example.com"},
		{"a@example.com", "*@example.com"},
		{"mail ada.l+x@mail.example.co.uk, or b@c.io.", "mail a******@mail.example.co.uk, or *@c.io."},
		{"<ada@example.com>", "<a**@example.com>"},
		{`{"e":"ada@example.com"}`, `{"e":"a**@example.com"}`},
		{"Üda@exämple.de", "Ü**@exämple.de"},
		{"'ada@example.com'", "'a**@example.com'"},
		{"ada@example.com.", "a**@example.com."},
		{"ada@example.com...", "a**@example.com..."},
		{"ada@localhost", ""},
		{"@example.com", ""},
		{"ada@", ""},
		{"ada@.com", ""},
		{"ada.@example.com", ""},
		{"ada@example.c", ""},
		{"v1@1.2.3", ""},
		{"ada@example.com@example.org", "a**@e**********@example.org"},
		// CARD
		{"4111111111111111", "************1111"},
		{"4111 1111 1111 1111", "**** **** **** 1111"},
		{"4111-1111-1111-1111", "****-****-****-1111"},
		{"card:5500005555555559;", "card:************5559;"},
		{"378282246310005", "***********0005"},
		{"2223000048400011", "************0011"},
		{"4222222222222", "*********2222"},
		{"4111111111111111 12/28", "************1111 12/28"},
		{"4111 1111 1111 1111 123", "**** **** **** 1111 123"},
		{"5 4111 1111 1111 1111", "5 **** **** **** 1111"},
		{"4111111111111112", ""},
		{"41111111111111111", ""},
		{"1111111111111117", ""},
		{"0000000000000000", ""},
		{"41111111111111111111111", ""},
		{"4111  1111  1111  1111", ""},
		// SSN
		{"123-45-6789", "***-**-****"},
		{"ssn 123-45-6789.", "ssn ***-**-****."},
		{"123 45 6789", "*** ** ****"},
		{"123-45 6789", ""},
		{"000-45-6789", ""},
		{"666-45-6789", ""},
		{"900-45-6789", ""},
		{"123-00-6789", ""},
		{"123-45-0000", ""},
		{"1123-45-6789", ""},
		{"123-45-67890", ""},
		{"9-123-45-6789", ""},
		{"123456789", ""},
		// IBAN
		{"DE89370400440532013000", "DE" + strings.Repeat("*", 20)},
		{"DE89 3704 0044 0532 0130 00", "DE** **** **** **** **** **"},
		{"GB82 WEST 1234 5698 7654 32!", "GB** **** **** **** **** **!"},
		{"iban gb82west12345698765432", "iban gb" + strings.Repeat("*", 20)},
		{"NO9386011117947", "NO*************"},
		{"DE89370400440532013001", ""},
		{"DE8937040044053201300", ""},
		{"DE893704004405320130000", ""},
		{"ZZ89370400440532013000", ""},
		{"XDE89370400440532013000", ""},
		// secrets
		{"AKIAIOSFODNN7EXAMPLE", "AKIA****************"},
		{"key=ASIAIOSFODNN7EXAMPLE,", "key=ASIA****************,"},
		{"AKIAIOSFODNN7EXAMPL", ""},
		{"AKIAIOSFODNN7EXAMPLEX", ""},
		{"AKIAIOSFODnN7EXAMPLE", ""},
		{"Bearer " + jwt + " x", "Bearer " + "********************.***************.************" + " x"},
		{"eyJhbGciOiJIUzI1NiJ9.short", ""},
		{key, "-----BEGIN RSA PRIVATE KEY-----\n********\n***\n-----END RSA PRIVATE KEY-----"},
		{`{"k":"-----BEGIN PRIVATE KEY-----\nMII\n"}`, `{"k":"-----BEGIN PRIVATE KEY-----\n***\n"}`},
		{"-----BEGIN CERTIFICATE-----\nMII", ""},
		{"-----BEGIN ", ""},
		{"ghp_" + strings.Repeat("a", 36), "ghp_" + strings.Repeat("*", 36)},
		{"xoxb-" + strings.Repeat("1-a", 10), "xoxb-" + strings.Repeat("*", 30)},
		{"ghp_short", ""},
		// PHONE
		{"+49 30 1234567", "+** ** *****67"},
		{"call +1 (202) 555-0143 now", "call +* (***) ***-**43 now"},
		{"+442071838750", "+**********50"},
		{"0049 30 1234567", "**** ** *****67"},
		{"(202) 555-0143", "(***) ***-**43"},
		{"202-555-0143.", "***-***-**43."},
		{"1-202-555-0143", "*-***-***-**43"},
		{"tel. 030 1234567", "tel. *** *****67"},
		{"+49 30 1234567 2024", "+** ** ******* **24"},
		{"+1 202 555 0143 24 hours", "+* *** *** **43 24 hours"},
		{"202-555-0143 99999999999", "***-***-**43 99999999999"},
		{"+1 202 555 0143 99999999999", "+* *** *** **43 99999999999"},
		{"phone=0301234567", "phone=********67"},
		{"tel:+493012345678", "tel:+**********78"},
		{"a=12345678", ""},
		{`{"phone":"0301234567"}`, `{"phone":"********67"}`},
		{"0301234567", ""},
		{"2025550143", ""},
		{"102-555-0143", ""},
		{"+999 1234", ""},
		{"+12025550143999999", ""},
		{"2024-05-06 10:11:12", ""},
		{"+0 123 456 789", ""},
		{"1+12345678", ""},
		// IP
		{"192.168.10.7", "192.***.**.*"},
		{"from 8.8.8.8:53", "from 8.*.*.*:53"},
		{"2001:db8::8a2e:370:7334", "2001:***::****:***:****"},
		{"fe80::1", "fe80::*"},
		{"2001:0db8:85a3:0000:0000:8a2e:0370:7334", "2001:****:****:****:****:****:****:****"},
		{"version 1.2.3.4", ""},
		{"256.1.1.1", ""},
		{"192.168.10.7.3", ""},
		{"192.168.1", ""},
		{"127.0.0.1", ""},
		{"01.02.03.04", ""},
		{"12:34:56:78", ""},
		{"aa:bb:cc:dd:ee:ff", ""},
		{"a::b", ""},
		{"std::vector::end", ""},
		{"cafe::babe", ""},
		// NATIONAL_ID
		{"AB 12 34 56 C", "** ** ** ** *"},
		{"NI no. AB123456C", "NI no. *********"},
		{"GB123456A", ""},
		{"AB123456E", ""},
		{"12345678Z", "*********"},
		{"12345678-Z,", "********-*,"},
		{"12345678A", ""},
		{"X1234567L", "*********"},
		{"X1234567M", ""},
		{"RSSMRA85T10A562S", "****************"},
		{"RSSMRA85T10A562T", ""},
		{"1 85 05 78 006 084 91", "* ** ** ** *** *** **"},
		{"185057800608491", "***************"},
		{"185057800608490", ""},
		{"529.982.247-25", "***.***.***-**"},
		{"529.982.247-26", ""},
		{"111.111.111-11", ""},
		{"2341 2341 2346", "**** **** ****"},
		{"2341 2341 2347", ""},
		{"36 574 261 809", "** *** *** ***"},
		{"36 574 261 808", ""},
		// CONNECTION
		{"postgres://app:s3cr3t@db:5432/x", "postgres://app:******@db:5432/x"},
		{"amqps://u:p@ss@host/v", "amqps://u:****@host/v"},
		{"redis://:only-a-password@cache:6379", "redis://:***************@cache:6379"},
		{"https://example.com/a@b", ""},
		{"postgres://app@db/x", ""},
		{"postgres://app:${PW}@db/x", ""},
		// CREDENTIAL
		{"password=hunter2hunter2", "password=**************"},
		{`{"api_key": "9f8e7d6c5b4a"}`, `{"api_key": "************"}`},
		{"export DB_PASSWORD='pa55 word' x", ""},
		{"DB_PASSWORD: pa55-word!", "DB_PASSWORD: **********"},
		{"aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = ****************************************"},
		{"AccountName=x;AccountKey=abcDEF123456==;EndpointSuffix=y", "AccountName=x;AccountKey=**************;EndpointSuffix=y"},
		{"clientSecret: 'a1b2c3d4e5'", "clientSecret: '**********'"},
		{"password: required", ""},
		{"password=$DB_PASSWORD", ""},
		{"token = get_token(x1)", ""},
		{"passwordless=true12345", ""},
		{"monkey=abc123def456", ""},
		// several
		{"ada@example.com 123-45-6789 4111111111111111", "a**@example.com ***-**-**** ************1111"},
	} {
		if c.want == "" {
			c.want = c.in
		}
		b := []byte(c.in)
		var n Counts
		changed := New(All).Mask(b, &n)
		if string(b) != c.want {
			t.Errorf("%q\n became %q\n want   %q", c.in, b, c.want)
		}
		if changed != (c.in != c.want) && !strings.HasPrefix(c.in, "a@") {
			t.Errorf("%q: changed %v, counts %v", c.in, changed, n)
		}
	}
}

// TestOnlyWhatWasAskedFor is the control: with an entity left out, its value stays.
func TestOnlyWhatWasAskedFor(t *testing.T) {
	samples := map[Set]string{
		Email: "ada@example.com", Card: "4111111111111111", IBAN: "DE89370400440532013000", SSN: "123-45-6789",
		AWSKey: "AKIAIOSFODNN7EXAMPLE", JWT: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", PrivateKey: key, Token: "glpat-aaaaaaaaaaaaaaaaaaaaaa",
		Phone: "+49 30 1234567", IP: "192.168.10.7", NationalID: "AB123456C", Connection: "postgres://app:s3cr3t@db/x", Credential: "api_key=9f8e7d6c5b4a",
	}
	for entity, s := range samples {
		for set, want := range map[Set]bool{entity: true, All: true, All &^ entity: false} {
			b := []byte(s)
			var n Counts
			if got := New(set).Mask(b, &n); got != want || got == (string(b) == s) {
				t.Errorf("%v in %v: changed %v, %q", entity, set, got, b)
			}
		}
		if Parse(entity.String()) != entity {
			t.Errorf("name %s", entity)
		}
	}
	if Parse("SECRET") != Secret || Parse("PERSONAL") != Personal || Parse("x") != 0 || fmt.Sprint(Email|SSN) != "EMAIL, SSN" {
		t.Error("names")
	}
}

// TestLinear: what a scan takes grows with the length of a value, and not with its square, whatever is repeated in it. Each of these has
// a mebibyte, for which the square takes minutes; the first three once did.
func TestLinear(t *testing.T) {
	d := New(All)
	for _, s := range []string{"eyJ-", "token=$", "token=a(", "eyJ-eya-", "eyJ-eyJ-.", "eyJaaaaa.", "token='$", "token:/", "a@", "a@b.", "1 ", "1((", "1-", "1:", "-----BEGIN ", "+1 ", "SG.", "://a:", "sk_live_ ", "DE12 "} {
		b := []byte(strings.Repeat(s, 1<<20/len(s)))
		var n Counts
		start := time.Now()
		d.Mask(b, &n)
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%q: %v", s, took)
		}
	}
}

func FuzzMask(f *testing.F) {
	for _, s := range []string{"ada@example.com", key, "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "eyJ.eyJ.", "@@@", "-----BEGIN PRIVATE KEY-----", "+1 (202) 555-0143", "2001:db8::1", "RSSMRA85T10A562S", "password='x", "a://b:c@d"} {
		f.Add([]byte(s))
	}
	d := New(All)
	f.Fuzz(func(t *testing.T, in []byte) {
		b := bytes.Clone(in)
		var n Counts
		changed := d.Mask(b, &n)
		if len(b) != len(in) || !changed && !bytes.Equal(b, in) {
			t.Fatalf("%q became %q, changed %v", in, b, changed)
		}
		for i := range b {
			if b[i] != in[i] && b[i] != '*' {
				t.Fatalf("%q became %q", in, b)
			}
		}
	})
}

func BenchmarkMask(b *testing.B) {
	row := "ada.lovelace@example.com 4111111111111111 some ordinary text that has nothing in it 2024-05-06 10:11:12"
	buf := make([]byte, len(row))
	d := New(All)
	var n Counts
	b.SetBytes(int64(len(row)))
	for b.Loop() {
		copy(buf, row)
		d.Mask(buf, &n)
	}
}
