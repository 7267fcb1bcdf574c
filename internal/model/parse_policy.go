package model

import v3 "github.com/weft-net/weft/api/v3"

func parseProfile(o *v3.Profile) (Value, error) {
	return Profile{Name: o.Name, Labels: o.Spec.LabelsToApply}, nil
}
