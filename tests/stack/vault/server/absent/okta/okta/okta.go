// Package okta stands where Vault's core asks Okta for a second factor. The original is one package of 12 MB of source, of
// the 143 that Vault is built of. Here the first call ends in an error; what comes after it is only there to
// compile.
package okta

import (
	"context"
	"errors"
)

var errAbsent = errors.New("Okta is left out of this build of Vault")

// Configuration is never made.
type Configuration struct{ Context context.Context }

// ConfigSetter changes nothing.
type ConfigSetter func(*Configuration)

// NewConfiguration refuses.
func NewConfiguration(...ConfigSetter) (*Configuration, error) { return nil, errAbsent }

func nothing(*Configuration) {}

// WithToken changes nothing.
func WithToken(string) ConfigSetter { return nothing }

// WithOrgUrl changes nothing.
func WithOrgUrl(string) ConfigSetter { return nothing }

// WithCache changes nothing.
func WithCache(bool) ConfigSetter { return nothing }

// APIClient asks nobody.
type APIClient struct {
	UserAPI       users
	UserFactorAPI factors
}

// NewAPIClient makes one.
func NewAPIClient(*Configuration) *APIClient { return &APIClient{} }

// GetConfig gives none.
func (*APIClient) GetConfig() *Configuration { return &Configuration{Context: context.Background()} }

// request refuses when it is executed.
type request[Answer any] struct{}

// Filter changes nothing.
func (r request[Answer]) Filter(string) request[Answer] { return r }

// Execute refuses.
func (request[Answer]) Execute() (answer Answer, _ any, _ error) { return answer, nil, errAbsent }

// User is one of Okta's.
type User struct{}

// GetId gives none.
func (User) GetId() string { return "" }

type users struct{}

// ListUsers is the first question.
func (users) ListUsers(context.Context) request[[]User] { return request[[]User]{} }

// UserFactorPush is a telephone that is asked for a yes.
type UserFactorPush struct{}

// GetId gives none.
func (UserFactorPush) GetId() string { return "" }

// Factor is one of a user's.
type Factor struct{ UserFactorPush *UserFactorPush }

// Verification is the answer to the question being sent.
type Verification struct{ Links any }

// GetFactorResult gives none.
func (Verification) GetFactorResult() string { return "" }

// Transaction is how far the question is.
type Transaction struct {
	UserFactorPushTransaction, UserFactorPushTransactionWaiting         *struct{}
	UserFactorPushTransactionRejected, UserFactorPushTransactionTimeout *struct{}
}

type factors struct{}

// ListFactors is the second question.
func (factors) ListFactors(context.Context, string) request[[]Factor] { return request[[]Factor]{} }

// VerifyFactor is the third.
func (factors) VerifyFactor(_ context.Context, _, _ string) request[Verification] {
	return request[Verification]{}
}

// GetFactorTransactionStatus is the last.
func (factors) GetFactorTransactionStatus(_ context.Context, _, _, _ string) request[Transaction] {
	return request[Transaction]{}
}
