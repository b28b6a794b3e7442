//! Declares metrics: a metric's name, labels, label values and help text stand in one place.
//!
//! [`metrics!`](crate::metrics!) declares a struct of metrics, [`label!`](crate::label!) a label as an enum. A labelled
//! metric is indexed by the type of its label, and all values of the label are registered at the start: a counter that
//! first appears with its first error has no `rate()`.

use std::{borrow::Cow, marker::PhantomData};

use prometheus::{IntCounterVec, Opts, Result};

pub use prometheus::{IntCounter, IntGauge, Registry};

/// A kind of metric that [`metrics!`](crate::metrics!) can declare.
pub trait Metric: Sized {
    /// Makes the metric and registers it. `name` is the namespace and the field; a kind with a suffix appends it.
    ///
    /// # Errors
    /// When a metric of this name is registered already.
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self>;
}

impl Metric for IntCounter {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self> {
        let counter = Self::new(format!("{name}_total"), help)?;
        registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }
}

impl Metric for IntGauge {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self> {
        let gauge = Self::new(name, help)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }
}

/// A label: a type whose values are the label's values.
pub trait Label: Sized {
    /// The label's name.
    const NAME: &'static str;

    /// All values. Where they cannot be enumerated, those that the code is expected to produce: any other value appears
    /// when it is first counted.
    fn all() -> impl IntoIterator<Item = Self>;

    /// The value in the metric.
    fn text(&self) -> Cow<'_, str>;
}

/// A counter for each value of a label.
pub struct IntCounterBy<L> {
    family: IntCounterVec,
    label: PhantomData<fn(L)>,
}

impl<L: Label> IntCounterBy<L> {
    /// The counter of one value.
    #[must_use]
    pub fn of(&self, value: &L) -> IntCounter {
        self.family.with_label_values(&[value.text()])
    }
}

impl<L> Clone for IntCounterBy<L> {
    fn clone(&self) -> Self {
        Self { family: self.family.clone(), label: PhantomData }
    }
}

impl<L: Label> Metric for IntCounterBy<L> {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self> {
        let family = IntCounterVec::new(Opts::new(format!("{name}_total"), help), &[L::NAME])?;
        registry.register(Box::new(family.clone()))?;
        let counters = Self { family, label: PhantomData };
        for value in L::all() {
            let _ = counters.of(&value);
        }
        Ok(counters)
    }
}

/// Declares a struct of metrics: `struct NAME in "NAMESPACE" { … }`, each field with a doc comment and a [`Metric`]
/// as its type.
///
/// The metric's name is the namespace and the field's name; counters end in `_total`. The doc comment is the help text,
/// and a field without one does not compile. The struct has a function `register`.
#[macro_export]
macro_rules! metrics {
    (
        $(#[doc = $about:literal])+
        $visibility:vis struct $name:ident in $namespace:literal {
            $( $(#[doc = $help:literal])+ pub $field:ident: $kind:ty, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone)]
        $visibility struct $name {
            $( $(#[doc = $help])+ pub $field: $kind, )+
        }

        impl $name {
            /// Makes and registers the metrics.
            ///
            /// # Errors
            /// When they are registered already.
            $visibility fn register(registry: &$crate::metrics::Registry) -> ::anyhow::Result<Self> {
                Ok(Self {
                    $( $field: $crate::metrics::Metric::register(
                        registry,
                        concat!($namespace, "_", stringify!($field)),
                        concat!($($help),+).trim(),
                    )?, )+
                })
            }
        }
    };
}

/// Declares a label as an enum: `enum NAME as "label" { VARIANT => "value", … }`.
#[macro_export]
macro_rules! label {
    (
        $(#[doc = $about:literal])+
        $visibility:vis enum $name:ident as $label:literal {
            $( $(#[doc = $meaning:literal])* $variant:ident => $text:literal, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name {
            $( $(#[doc = $meaning])* $variant, )+
        }

        impl $crate::metrics::Label for $name {
            const NAME: &'static str = $label;

            fn all() -> impl IntoIterator<Item = Self> {
                [$( Self::$variant, )+]
            }

            fn text(&self) -> ::std::borrow::Cow<'_, str> {
                match self {
                    $( Self::$variant => $text, )+
                }
                .into()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use prometheus::{Encoder, TextEncoder};

    use super::{IntCounter, IntCounterBy, IntGauge, Label, Registry};

    crate::metrics! {
        /// Metrics of a kitchen.
        struct Metrics in "kitchen" {
            /// Meals served.
            pub meals: IntCounter,
            /// Pots on the stove now; a "pot" has
            /// a lid.
            pub pots: IntGauge,
            /// Meals sent back, by reason.
            pub returns: IntCounterBy<Reason>,
            /// Guests seated, by table.
            pub guests: IntCounterBy<Table>,
        }
    }

    crate::label! {
        /// Why a meal came back.
        enum Reason as "reason" {
            Cold => "cold",
            /// The guest ordered another one.
            Wrong => "wrong_meal",
        }
    }

    struct Table(u8);

    impl Label for Table {
        const NAME: &'static str = "table";

        fn all() -> impl IntoIterator<Item = Self> {
            (1..=2).map(Self)
        }

        fn text(&self) -> Cow<'_, str> {
            self.0.to_string().into()
        }
    }

    fn exposed(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn all_metrics_and_label_values_are_exposed_at_zero_and_doc_comments_are_the_help() {
        let registry = Registry::new();
        let _metrics = Metrics::register(&registry).unwrap();
        assert_eq!(
            exposed(&registry),
            r#"# HELP kitchen_guests_total Guests seated, by table.
# TYPE kitchen_guests_total counter
kitchen_guests_total{table="1"} 0
kitchen_guests_total{table="2"} 0
# HELP kitchen_meals_total Meals served.
# TYPE kitchen_meals_total counter
kitchen_meals_total 0
# HELP kitchen_pots Pots on the stove now; a "pot" has a lid.
# TYPE kitchen_pots gauge
kitchen_pots 0
# HELP kitchen_returns_total Meals sent back, by reason.
# TYPE kitchen_returns_total counter
kitchen_returns_total{reason="cold"} 0
kitchen_returns_total{reason="wrong_meal"} 0
"#
        );
    }

    #[test]
    fn what_is_counted_is_exposed_also_for_a_value_that_was_not_listed() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.meals.inc();
        metrics.pots.set(3);
        metrics.clone().returns.of(&Reason::Wrong).inc_by(2);
        metrics.guests.of(&Table(9)).inc();
        let text = exposed(&registry);
        for line in [
            "kitchen_meals_total 1",
            "kitchen_pots 3",
            r#"kitchen_returns_total{reason="cold"} 0"#,
            r#"kitchen_returns_total{reason="wrong_meal"} 2"#,
            r#"kitchen_guests_total{table="9"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn registering_the_same_metrics_twice_is_an_error() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        assert!(Metrics::register(&registry).is_err());
    }
}
