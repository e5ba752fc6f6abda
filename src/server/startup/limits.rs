//! Derives the limits of the layers from the settings.

use std::time::Duration;

use crate::{
    app::{AppLimits, ShareLimits, WatchLimits},
    settings::Settings,
    store::LaneSizes,
    verify::{LATE_TOKENS_MAX, USED_MARKS_MAX, VerifyLimits},
};

pub(super) fn verify_limits(settings: &Settings) -> VerifyLimits {
    VerifyLimits {
        cached_tokens_max: settings.cache_keys_max,
        shared_bytes_max: settings.cache_shared_bytes_max,
        unknown_tokens_max: settings.negative_entries_max,
        ended_tokens_max: settings.ended_entries_max,
        misses_in_flight_max: settings.misses_in_flight_max,
        unknown_loads_per_second_max: settings.unknown_loads_per_second_max,
        unknown_loads_burst_max: settings.unknown_loads_burst_max,
        ended_loads_per_second_max: settings.ended_loads_per_second_max,
        late_events_per_hour_max: settings.late_events_per_hour_max,
        late_events_per_account_hour_max: settings.late_events_per_account_hour_max,
        miss_timeout: Duration::from_millis(settings.database_timeout_ms),
        lease: Duration::from_millis(settings.lease_ms),
        stale_max: Duration::from_millis(settings.stale_max_ms),
        poll_interval: Duration::from_millis(settings.poll_interval_ms),
        used_marks_max: USED_MARKS_MAX,
        late_tokens_max: LATE_TOKENS_MAX,
    }
}

pub(super) fn lane_sizes(settings: &Settings) -> LaneSizes {
    let reads = settings.database_pool_size_max.div_ceil(2);
    LaneSizes {
        narrowing: settings.narrowing_pool_size_max,
        callers: settings.caller_pool_size_max,
        mutations: (settings.database_pool_size_max - reads).max(1),
        reads,
        watches: settings.watch_pool_size_max,
        misses: settings.verify_pool_size_max,
        upkeep: settings.upkeep_pool_size_max,
    }
}

fn share_limits(settings: &Settings) -> ShareLimits {
    let sizes = lane_sizes(settings);
    ShareLimits {
        narrowing_at_once_max: sizes.narrowing,
        callers_at_once_max: sizes.callers,
        mutations_at_once_max: sizes.mutations,
        reads_at_once_max: sizes.reads,
        watch_reads_at_once_max: sizes.watches,
        mutations_per_account_max: settings.mutations_per_account_max,
        mutations_per_caller_max: settings.mutations_per_caller_max,
        reads_per_account_max: settings.reads_per_account_max,
        reads_per_caller_max: settings.reads_per_caller_max,
        waiting_calls_max: settings.waiting_calls_max,
        waiting_calls_per_account_max: settings.waiting_calls_per_account_max,
        waiting_calls_per_caller_max: settings.waiting_calls_per_caller_max,
    }
}

fn watch_limits(settings: &Settings) -> WatchLimits {
    WatchLimits {
        watches_max: settings.watches_max,
        account_watches_max: settings.account_watches_max,
        watches_per_account_max: settings.watches_per_account_max,
        watches_per_caller_max: settings.watches_per_caller_max,
    }
}

pub(super) fn app_limits(settings: &Settings) -> AppLimits {
    let bounded = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    AppLimits {
        api_keys_per_account_max: bounded(settings.api_keys_per_account_max),
        api_keys_per_team_max: Some(bounded(settings.api_keys_per_team_max)).filter(|max| *max > 0),
        deleted_api_keys_per_account_max: bounded(settings.deleted_api_keys_per_account_max),
        tokens_per_api_key_max: bounded(settings.tokens_per_api_key_max),
        ended_token_retention_days: bounded(settings.ended_token_retention_days),
        lease: Duration::from_millis(settings.lease_ms),
        usage_flush_interval: Duration::from_millis(settings.usage_flush_interval_ms),
        shares: share_limits(settings),
        watches: watch_limits(settings),
        list_scan_rows_max: bounded(settings.list_scan_rows_max),
        chain_events_max: bounded(settings.chain_events_max),
    }
}
