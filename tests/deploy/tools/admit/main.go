// What a MutatingAdmissionPolicy, the first document of a file, makes of a JSON list of pods, by the API server's own code:
// admit POLICY.yaml PODS.json. A pod that the policy's selector or conditions leave out comes back as it was.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	documents "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: admit POLICY.yaml PODS.json")
	}
	file, err := os.Open(os.Args[1])
	check(err)
	text, err := documents.NewYAMLReader(bufio.NewReader(file)).Read()
	check(err)
	var policy admissionv1.MutatingAdmissionPolicy
	check(yaml.UnmarshalStrict(text, &policy))
	given, err := os.ReadFile(os.Args[2])
	check(err)
	var pods []*corev1.Pod
	check(yaml.UnmarshalStrict(given, &pods))
	selector, err := metav1.LabelSelectorAsSelector(policy.Spec.MatchConstraints.ObjectSelector)
	check(err)
	compiled := compile(&policy)
	admitted := make([]runtime.Object, len(pods))
	for i, pod := range pods {
		admitted[i] = pod
		if selector.Matches(labels.Set(pod.Labels)) {
			admitted[i] = compiled.admit(pod)
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(admitted))
}

type evaluator struct {
	matcher  matchconditions.Matcher
	patchers []patch.Patcher
	compiler *plugincel.CompositedCompiler
}

// compile does as compilePolicy of k8s.io/apiserver/pkg/admission/plugin/policy/mutating, which is not exported.
func compile(policy *admissionv1.MutatingAdmissionPolicy) evaluator {
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	check(err)
	options := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	conditions := make([]plugincel.ExpressionAccessor, len(policy.Spec.MatchConditions))
	for i := range policy.Spec.MatchConditions {
		conditions[i] = (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i])
	}
	evaluators := compiler.CompileCondition(conditions, options, environment.StoredExpressions)
	made := evaluator{
		matcher:  matchconditions.NewMatcher(evaluators, policy.Spec.FailurePolicy, "policy", "validate", policy.Name),
		compiler: compiler,
	}
	options.HasPatchTypes = true
	for _, m := range policy.Spec.Mutations {
		switch m.PatchType {
		case admissionv1.PatchTypeJSONPatch:
			accessor := &patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}
			made.patchers = append(made.patchers,
				patch.NewJSONPatcher(compiler.CompileMutatingEvaluator(accessor, options, environment.StoredExpressions)))
		case admissionv1.PatchTypeApplyConfiguration:
			accessor := &patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}
			made.patchers = append(made.patchers,
				patch.NewApplyConfigurationPatcher(compiler.CompileMutatingEvaluator(accessor, options, environment.StoredExpressions)))
		}
	}
	return made
}

func (e evaluator) admit(pod *corev1.Pod) runtime.Object {
	ctx := e.compiler.CreateContext(context.Background())
	kind, resource := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithResource("pods")
	pod.SetGroupVersionKind(kind)
	var object runtime.Object = pod
	for i, patcher := range e.patchers {
		attributes := admission.NewAttributesRecord(object, nil, kind, pod.Namespace, pod.Name, resource, "", admission.Create,
			&metav1.CreateOptions{}, false, nil)
		versioned := &admission.VersionedAttributes{
			Attributes:         attributes,
			VersionedKind:      kind,
			VersionedObject:    admission.NewLazyObject(object),
			VersionedOldObject: admission.NewLazyObject(nil),
		}
		if i == 0 {
			matched := e.matcher.Match(ctx, versioned, nil, nil)
			check(matched.Error)
			if !matched.Matches {
				return pod
			}
		}
		var err error
		object, err = patcher.Patch(ctx, patch.Request{
			MatchedResource:     resource,
			VersionedAttributes: versioned,
			ObjectInterfaces:    admission.NewObjectInterfacesFromScheme(scheme.Scheme),
			Namespace:           &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
			TypeConverter:       applyconfigurations.NewTypeConverter(scheme.Scheme),
		}, celconfig.RuntimeCELCostBudget)
		check(err)
	}
	return object
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
