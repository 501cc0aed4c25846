-- title: From sign-up to payment
-- definition: Of the people who first saw a sign-up page in the period, those who signed up; of the sign-ups of the period, those who were activated and those who paid, whenever. Times are medians from the sign-up. Which events these are is defined per app (insight apply).
SELECT saw_signup_page, signed_up_after_page, signup_rate, median_seconds_to_signup, signups, activated, activation_rate, median_seconds_to_activation, new_subscribers, new_paying, converted, free_to_paid_rate, median_seconds_to_paid
FROM fit(app = {app:String}, from = {first:Date}, to = {end:Date}, zone = {zone:String})
WHERE app_id = {app:String}
