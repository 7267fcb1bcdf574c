package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/spelling"
)

// FelixFromEnv makes a configuration of the FELIX_* variables of environ
// ("NAME=value"): FELIX_INTERFACEPREFIX sets interfacePrefix and so on. Times
// are seconds, or Go durations. Variables that are no field (FELIX_ETCDADDR and
// other settings of the process) are returned in ignored. The error names the
// variable, its value and what is allowed.
func FelixFromEnv(environ []string) (config model.FelixConfig, ignored []string, err error) {
	given := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if field, ok := strings.CutPrefix(name, "FELIX_"); ok && value != "" {
			given[field] = value
		}
	}
	return felixFrom("env", "FELIX_", given)
}

// unknownSettings says which settings of the process have no effect.
func unknownSettings(names []string) []model.Problem {
	var out []model.Problem
	for _, name := range slices.Sorted(slices.Values(names)) {
		out = append(out, model.Problem{Text: name + ": no such setting in this version: without effect" + meant(name)})
	}
	return out
}

// meant names the setting that name might be misspelled for; empty: there is none.
func meant(name string) string {
	field := strings.ToLower(strings.TrimPrefix(name, "FELIX_"))
	spec := reflect.TypeFor[v3.FelixConfigurationSpec]()
	best, distance := "", len(field)/6+2
	for i := range spec.NumField() {
		known, _, _ := strings.Cut(spec.Field(i).Tag.Get("json"), ",")
		if d := spelling.Edits(field, known); d < distance {
			best, distance = known, d
		}
	}
	switch {
	case best == "":
		return ""
	case field != strings.ToLower(name):
		best = "FELIX_" + strings.ToUpper(best)
	}
	return ": did you mean " + best + "?"
}

// oldName is the name of a field in JSON for one that Calico has in variables and files
// only.
func oldName(name string) string {
	switch strings.ToLower(name) {
	case "ipinipenabled":
		return "ipipEnabled"
	case "ipinipmtu":
		return "ipipMTU"
	case "externalnodescidrlist":
		return "externalNodesList"
	case "wireguardpersistentkeepalive":
		return "wireguardKeepAlive"
	}
	return name
}

// FelixFromFile makes a configuration of an INI file as felix.cfg is: lines of
// Name = value under [global]. A file that does not exist sets nothing.
func FelixFromFile(path string) (config model.FelixConfig, ignored []string, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return model.FelixConfig{Name: path}, nil, nil
	}
	if err != nil {
		return model.FelixConfig{}, nil, fmt.Errorf("agent: configuration file: %w", err)
	}
	given := map[string]string{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.ContainsAny(line[:1], "#;[") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return model.FelixConfig{}, nil, fmt.Errorf("agent: %s:%d: %q: must be NAME = VALUE", path, i+1, line)
		}
		given[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return felixFrom(path, "", given)
}

// felixFrom makes a configuration named source of texts by field name, in any
// case; prefix is what users write before the field name.
func felixFrom(source, prefix string, given map[string]string) (model.FelixConfig, []string, error) {
	var spec v3.FelixConfigurationSpec
	var ignored []string
	v := reflect.ValueOf(&spec).Elem()
	for name, text := range given {
		if strings.EqualFold(name, "FelixConfigFile") {
			continue // where the file is
		}
		field, ok := fieldByName(v, oldName(name))
		if !ok {
			ignored = append(ignored, prefix+name)
			continue
		}
		if err := setField(field, text); err != nil {
			return model.FelixConfig{}, nil, fmt.Errorf("agent: %s%s=%q: %w", prefix, name, text, err)
		}
	}
	object := &v3.FelixConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: spec}
	if wrong := v3.FieldErrors(v3.Validate(object)); len(wrong) > 0 {
		return model.FelixConfig{}, nil, fmt.Errorf("agent: %w", asGiven(wrong[0], prefix, given))
	}
	parsed, err := model.Parse(object)
	if err != nil {
		return model.FelixConfig{}, nil, fmt.Errorf("agent: settings from %s: %w", source, err)
	}
	config, ok := parsed.(model.FelixConfig)
	if !ok {
		return model.FelixConfig{}, nil, fmt.Errorf("agent: settings from %s: parsed as %T", source, parsed)
	}
	config.Name = source
	return config, ignored, nil
}

// asGiven names a field by what the user wrote for it.
func asGiven(e *v3.FieldError, prefix string, given map[string]string) error {
	field, _, _ := strings.Cut(strings.TrimPrefix(e.Field, "spec."), "[")
	for name, text := range given {
		if strings.EqualFold(field, oldName(name)) {
			return fmt.Errorf("%s%s=%q: %s", prefix, name, text, e.Reason)
		}
	}
	return e
}

// fieldByName finds a field of a spec by its name in JSON, in any case.
func fieldByName(spec reflect.Value, name string) (reflect.Value, bool) {
	for i := range spec.NumField() {
		field, _, _ := strings.Cut(spec.Type().Field(i).Tag.Get("json"), ",")
		if strings.EqualFold(field, name) {
			return spec.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// setField gives a field the value that text means for its type.
func setField(f reflect.Value, text string) error {
	if f.Kind() == reflect.Pointer {
		f.Set(reflect.New(f.Type().Elem()))
		f = f.Elem()
	}
	switch v := f.Addr().Interface().(type) {
	case *metav1.Duration:
		return setDuration(v, text)
	case *[]v3.ProtoPort:
		if !strings.HasPrefix(text, "[") || !json.Valid([]byte(text)) {
			return setPorts(v, text)
		}
	case *[]string:
		if !strings.HasPrefix(text, "[") {
			return setTexts(v, text)
		}
	case *v3.Port:
		parsed, err := v3.ParsePort(text)
		*v = parsed
		return err
	case *v3.RouteTableRange:
		if !strings.HasPrefix(text, "{") {
			return setTables(v, text)
		}
	case *[]v3.RouteTableRange:
		if !strings.HasPrefix(text, "[") {
			return setAllTables(v, text)
		}
	}
	switch f.Kind() {
	case reflect.Bool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return errors.New("must be true or false")
		}
		f.SetBool(b)
	case reflect.String:
		f.SetString(text)
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(text, 0, f.Type().Bits())
		if err != nil {
			return errors.New("must be a whole number")
		}
		f.SetInt(n)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 0, f.Type().Bits())
		if err != nil {
			return errors.New("must be a whole number that is not negative")
		}
		f.SetUint(n)
	default:
		// A list or an object: JSON, as in the resource.
		if err := json.Unmarshal([]byte(text), f.Addr().Interface()); err != nil {
			return fmt.Errorf("must be JSON as in FelixConfiguration: %w", err)
		}
	}
	return nil
}

// setPorts reads a list with commas of PORT, PROTOCOL:PORT, and with a net before or
// behind the port, in brackets or not; "none" is an empty list.
func setPorts(list *[]v3.ProtoPort, text string) error {
	*list = []v3.ProtoPort{}
	if strings.EqualFold(text, "none") {
		return nil
	}
	for item := range strings.SplitSeq(text, ",") {
		p := v3.ProtoPort{Protocol: "tcp"}
		rest := strings.TrimSpace(item)
		if protocol, more, ok := strings.Cut(rest, ":"); ok && strings.Trim(strings.ToLower(protocol), "abcdefghijklmnopqrstuvwxyz") == "" {
			p.Protocol, rest = strings.ToLower(protocol), more
		}
		port, net := rest, ""
		if i := strings.LastIndexByte(rest, ':'); i >= 0 {
			net, port = rest[:i], rest[i+1:]
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil { // the other way round
			port, net, _ = strings.Cut(rest, ":")
			n, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("%q: must be a list of PROTOCOL:PORT or PROTOCOL:NET:PORT with commas, or none", item)
		}
		p.Port, p.Net = uint16(n), strings.Trim(net, "[]")
		*list = append(*list, p)
	}
	return nil
}

// setTexts reads a list with commas; "none" is an empty list.
func setTexts(list *[]string, text string) error {
	*list = []string{}
	if strings.EqualFold(text, "none") {
		return nil
	}
	for item := range strings.SplitSeq(text, ",") {
		*list = append(*list, strings.TrimSpace(item))
	}
	return nil
}

// setAllTables reads ranges with commas, "1-100,200-250".
func setAllTables(list *[]v3.RouteTableRange, text string) error {
	for item := range strings.SplitSeq(text, ",") {
		var r v3.RouteTableRange
		if err := setTables(&r, strings.TrimSpace(item)); err != nil {
			return err
		}
		*list = append(*list, r)
	}
	return nil
}

func setTables(r *v3.RouteTableRange, text string) error {
	low, high, _ := strings.Cut(text, "-")
	var errLow, errHigh error
	r.Min, errLow = strconv.Atoi(low)
	r.Max, errHigh = strconv.Atoi(high)
	if errLow != nil || errHigh != nil {
		return fmt.Errorf("%q: must be ranges of routing tables such as 1-250, with commas", text)
	}
	return nil
}

func setDuration(d *metav1.Duration, text string) error {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		d.Duration = time.Duration(seconds * float64(time.Second))
		return nil
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("must be seconds, or a duration such as 90s")
	}
	d.Duration = parsed
	return nil
}
