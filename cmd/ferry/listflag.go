package main

import (
	"strings"

	"github.com/spf13/pflag"
)

// listValue is a flag that may be given several times, or with several values
// between commas. Unlike pflag's own it takes a value for what it is: quotes
// and line ends have no meaning.
type listValue struct{ list *[]string }

// listVar adds such a flag without a default.
func listVar(f *pflag.FlagSet, list *[]string, name, usage string) {
	listVarP(f, list, name, "", usage)
}

// listVarP is listVar with a short form.
func listVarP(f *pflag.FlagSet, list *[]string, name, short, usage string) {
	f.VarP(listValue{list}, name, short, usage)
}

func (v listValue) Set(s string) error {
	*v.list = append(*v.list, strings.Split(s, ",")...)
	return nil
}

func (v listValue) String() string {
	if v.list == nil {
		return ""
	}
	return strings.Join(*v.list, ",")
}

func (listValue) Type() string { return "strings" }
