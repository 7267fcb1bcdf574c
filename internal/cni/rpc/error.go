package rpc

import "errors"

// Codes of errors, from the CNI specification and, from 100 on, our own.
const (
	CodeUnsupportedField uint = 2
	CodeUnknownContainer uint = 3
	CodeEnvironment      uint = 4
	CodeIO               uint = 5
	CodeDecoding         uint = 6
	CodeInvalidConfig    uint = 7
	CodeTryLater         uint = 11  // a passing condition; the runtime should ask again
	CodeNotAvailable     uint = 50  // STATUS: no ADD can be served
	CodeLimited          uint = 51  // STATUS: as 50, and existing containers may lack connectivity
	CodeNoAddress        uint = 100 // pools exhausted, or the requested address is taken
	CodeCheck            uint = 101 // CHECK: something is not as ADD left it
	CodeInternal         uint = 999 // anything else; Calico's number for it
)

// Error is an error with the code that the runtime sees.
type Error struct {
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`               // one line
	Details string `json:"details,omitempty"` // more, for people; may be empty
}

// Error is the message, without the code.
func (e *Error) Error() string {
	if e.Details == "" {
		return e.Msg
	}
	return e.Msg + " (" + e.Details + ")"
}

// errorFor is err as an *Error: itself if it wraps one, else CodeInternal.
func errorFor(err error) *Error {
	if e := (*Error)(nil); errors.As(err, &e) {
		if e.Error() == err.Error() {
			return e
		}
		return &Error{Code: e.Code, Msg: err.Error()} // keep what was wrapped around it
	}
	return &Error{Code: CodeInternal, Msg: err.Error()}
}
